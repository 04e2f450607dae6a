"""What leaves the queue together: the most urgent first, alike in length, within the bounds, and once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.admission import Admission
from service.engine.batch import Batch
from service.engine.batcher import Batcher
from service.engine.counters import Counters
from service.engine.layout import Layout
from service.engine.limits import INLINE_S, Limits
from service.engine.request import Request
from tests.service.bundles import example_inputs
from tests.service.engine.fakes import LOOP, FakeSession, manifest, rows

SESSION = FakeSession(max_steps=200)


def batcher(limits: Limits | None = None, *, length_buckets: tuple[int, ...] | None = None) -> Batcher:
    layout = Layout(SESSION.manifest, length_buckets)
    return Batcher(layout, limits or Limits(), Counters(model="m", version="1"), Admission(1))


def push(queue: Batcher, *lengths: int, deadline: float = 100.0) -> Request:
    inputs = rows(*lengths)
    request = Request(
        SESSION, queue, inputs, None, num_rows=len(lengths), items="", arrived=0.0, deadline=deadline, loop=LOOP
    )  # type: ignore[arg-type]
    for piece in queue.pieces(request):
        queue.push(piece)
    return request


def lengths_of(batch: Batch) -> list[int]:
    return [n for piece in batch.pieces for n in piece.request.inputs["lengths"][piece.rows].tolist()]


def take(queue: Batcher, now: float = 0.0) -> Batch:
    batch = queue.take(now)
    assert batch is not None
    return batch


def test_the_most_urgent_leads() -> None:
    queue = batcher(Limits(max_batch_items=2))
    requests = [push(queue, 10, deadline=deadline) for deadline in (5, 3, 4, 3)]
    first, second = take(queue), take(queue)
    assert [piece.request for piece in first.pieces] == [requests[1], requests[3]]
    assert [piece.request for piece in second.pieces] == [requests[2], requests[0]]
    assert queue.take(0.0) is None


def test_a_full_queue_of_others_does_not_hold_up_an_urgent_length() -> None:
    queue = batcher()
    for _ in range(100):
        push(queue, 10)
    push(queue, 100, deadline=1.0)
    assert lengths_of(take(queue)) == [100]


def test_neighbouring_lengths_fill_a_batch_as_long_as_little_is_wasted() -> None:
    queue = batcher()
    for length in (100, 90, 110, 10, 85, 50):
        push(queue, length)
    assert sorted(lengths_of(take(queue))) == [85, 90, 100, 110]
    assert lengths_of(take(queue)) == [10]
    assert lengths_of(take(queue)) == [50]


def test_given_buckets_are_never_mixed() -> None:
    queue = batcher(length_buckets=(8, 16, 200))
    for length in (7, 8, 9, 16):
        push(queue, length)
    assert [sorted(lengths_of(take(queue))) for _ in range(2)] == [[7, 8], [9, 16]]


@given(st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=9), max_size=12), st.integers(1, 9))
def test_every_row_leaves_once_within_the_bounds(requests: list[list[int]], max_items: int) -> None:
    limits = Limits(max_batch_items=max_items, max_batch_steps=300)
    queue = batcher(limits)
    sent = [push(queue, *lengths, deadline=float(i)) for i, lengths in enumerate(requests)]
    left: dict[Request, list[int]] = {request: [] for request in sent}
    while (batch := queue.take(-1.0)) is not None:
        lengths = lengths_of(batch)
        assert (len(lengths), max(lengths), sum(lengths)) == (batch.num_rows, batch.longest, batch.steps)
        assert batch.num_rows <= max_items
        assert batch.num_rows == 1 or batch.num_rows * batch.longest <= limits.max_batch_steps
        assert 1 - batch.steps / (batch.num_rows * batch.longest) <= limits.max_waste
        for piece in batch.pieces:
            left[piece.request] += np.arange(piece.request.num_rows)[piece.rows].tolist()
    assert all(sorted(numbers) == list(range(request.num_rows)) for request, numbers in left.items())
    assert (queue.num_rows, queue.counters.queued_items) == (0, 0)


def test_the_discarded_never_leave() -> None:
    queue = batcher()
    gone, stays = push(queue, 5, 9, 30), push(queue, 9)
    assert queue.discard(gone) == 3
    assert [piece.request for piece in take(queue).pieces] == [stays]
    assert queue.take(0.0) is None
    assert queue.num_rows == 0


def test_the_late_are_handed_out_apart() -> None:
    queue = batcher()
    late, stays = push(queue, 9, deadline=1.0), push(queue, 9, deadline=3.0)
    batch = take(queue, now=2.0)
    assert [piece.request for piece in batch.pieces] == [stays]
    assert batch.expired == [late]
    assert queue.counters.expired_items == 1


def test_clearing_tells_who_waited() -> None:
    queue = batcher()
    requests = [push(queue, 5, 30), push(queue, 9)]
    assert set(queue.clear()) == set(requests)
    assert queue.take(0.0) is None


def test_the_work_that_waits_is_known() -> None:
    admission = Admission(1)
    queue = Batcher(Layout(SESSION.manifest), Limits(max_batch_items=8), Counters(model="m", version="1"), admission)
    queue.latency.observe(8, 16, 0.4)
    request = push(queue, *[16] * 12)
    assert admission.total_s == pytest.approx(0.6)  # twelve times an eighth of a full batch
    take(queue)
    assert admission.total_s == pytest.approx(0.2)
    queue.discard(request)
    assert admission.total_s == 0


def test_alone_as_in_a_batch_steps_are_those_that_were_computed() -> None:
    inputs = {name: np.pad(value, [(0, 0), (0, 61), (0, 0)]) if value.ndim == 3 and name == "series" else value
              for name, value in rows(3).items()}  # fmt: skip
    queue = batcher(length_buckets=(8, 16, 32, 64))
    queue.note_alone(inputs, 1, 1e-4)
    assert (queue.counters.steps, queue.counters.padded_steps) == (3, 5)
    mixing = batcher()
    mixing.note_alone(inputs, 1, 1e-4)
    assert (mixing.counters.steps, mixing.counters.padded_steps) == (3, 61)


def ask(queue: Batcher, *lengths: int) -> Request:
    """A request that is not queued."""
    return Request(
        SESSION, queue, rows(*lengths), None, num_rows=len(lengths), items="", arrived=0.0, deadline=9.0, loop=LOOP
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(("full_s", "sizes"), [(0.8 * INLINE_S, [8, 8, 3]), (1.2 * INLINE_S, [4, 4, 4, 4, 3])])
def test_what_came_together_is_cut_into_quick_batches(full_s: float, sizes: list[int]) -> None:
    queue = batcher(Limits(max_batch_items=8))
    for num_rows in (1, 2, 4, 8):
        queue.latency.observe(num_rows, 10, full_s * num_rows / 8)
    requests = [ask(queue, 10) for _ in range(19)]
    batches = queue.quick(requests)
    assert [batch.num_rows for batch in batches] == sizes
    assert [piece.request for batch in batches for piece in batch.pieces] == requests
    assert queue.num_rows == 0


def test_what_is_slow_or_unlike_is_queued() -> None:
    queue, other = batcher(Limits(max_batch_items=8)), batcher()
    assert queue.quick([ask(queue, 10)]) == [], "nobody knows how long it takes"
    for num_rows in (1, 8):
        queue.latency.observe(num_rows, 10, 1e-4)
    alike = [ask(queue, 10), ask(queue, 10)]
    assert len(queue.quick(alike)) == 1
    assert queue.quick([*alike, ask(queue, 50)]) == [], "of another length"
    assert queue.quick([*alike, ask(queue, 10, 50)]) == [], "of two lengths"
    assert queue.quick([*alike, ask(other, 10)]) == [], "for another model"
    assert queue.quick([*alike, ask(queue, *[10] * 8)]) == [], "a full batch by itself"
    assert len(queue.quick([*alike, ask(queue, *[10] * 8)], beside=False)) == 2, "there is no other thread for it"
    alike[0].future.cancel()
    assert queue.quick(alike) == [], "nobody waits for it"


def test_models_without_lengths_share_batches_by_shape() -> None:
    layout = Layout(manifest("image-classifier"))
    queue = Batcher(layout, Limits(max_batch_items=5), Counters(model="m", version="1"), Admission(1))
    for batch in (3, 4):
        inputs = example_inputs("image-classifier", batch=batch)
        request = Request(SESSION, queue, inputs, None, num_rows=batch, items="", arrived=0.0, deadline=9.0, loop=LOOP)  # type: ignore[arg-type]
        for piece in queue.pieces(request):
            queue.push(piece)
    assert [take(queue).num_rows for _ in range(2)] == [3, 4]  # no request is cut that has room in a batch of its own


def test_models_without_lengths_are_batched_by_what_a_row_takes() -> None:
    """A prompt of many tokens, straight to the model's own tensors, is neither quick nor small because others were."""
    layout = Layout(manifest("language-model"))
    queue = Batcher(layout, Limits(max_batch_steps=256), Counters(model="m", version="1"), Admission(1))
    short, long = (
        example_inputs("language-model", batch=4) | {"ids": np.zeros((4, num_steps), np.int64)} for num_steps in (1, 99)
    )
    past = layout.num_steps(short) - 1
    assert layout.num_steps(long) == 99 + past
    queue.observe(4, layout.num_steps(short), INLINE_S / 2)
    assert queue.is_quick(4, layout.num_steps(short))
    assert not queue.is_quick(4, layout.num_steps(long))
    queue.note_alone(long, 4, 1.0)
    assert (queue.counters.steps, queue.counters.padded_steps) == (4 * (99 + past), 0)
    request = Request(SESSION, queue, long, None, num_rows=4, items="", arrived=0.0, deadline=9.0, loop=LOOP)  # type: ignore[arg-type]
    for piece in queue.pieces(request):
        queue.push(piece)
    batches = [take(queue), take(queue)]
    assert [batch.num_rows for batch in batches] == [2, 2]
    assert [batch.steps for batch in batches] == [2 * (99 + past)] * 2
