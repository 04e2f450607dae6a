"""Batches leave the queue with the most urgent slice first, similar lengths, within the limits, and each row once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.batching.backlog import Backlog
from service.engine.batching.collate import Collator
from service.engine.batching.queue import Batch, BatchQueue
from service.engine.batching.request import Request, RequestStatus
from service.engine.limits import INLINE_BUDGET_S
from tests.service.bundles import example_inputs
from tests.service.engine.fakes import FakeSession, manifest, rows
from tests.service.engine.requests import make_queue, make_request

SESSION = FakeSession(max_steps=200)


def tagger_queue(length_buckets: tuple[int, ...] | None = None, **options: Any) -> BatchQueue:
    return make_queue(collator=Collator(SESSION.manifest, length_buckets), **options)


def request_of(queue: BatchQueue, *lengths: int, deadline: float = 100.0) -> Request:
    return make_request(queue, rows(*lengths), session=SESSION, deadline=deadline)


def push(queue: BatchQueue, *lengths: int, deadline: float = 100.0) -> Request:
    request = request_of(queue, *lengths, deadline=deadline)
    for part in queue.slices(request):
        queue.push(part)
    return request


def lengths_of(batch: Batch) -> list[int]:
    return [n for part in batch.slices for n in part.request.inputs["lengths"][part.rows].tolist()]


def next_batch(queue: BatchQueue, now: float = 0.0) -> Batch:
    batch = queue.next_batch(now)
    assert batch is not None
    return batch


def test_the_most_urgent_slice_leads_a_batch() -> None:
    queue = tagger_queue(max_batch_items=2)
    requests = [push(queue, 10, deadline=deadline) for deadline in (5, 3, 4, 3)]
    first, second = next_batch(queue), next_batch(queue)
    assert [part.request for part in first.slices] == [requests[1], requests[3]]
    assert [part.request for part in second.slices] == [requests[2], requests[0]]
    assert queue.next_batch(0.0) is None


def test_many_rows_of_another_length_do_not_delay_an_urgent_row() -> None:
    queue = tagger_queue()
    for _ in range(100):
        push(queue, 10)
    push(queue, 100, deadline=1.0)
    assert lengths_of(next_batch(queue)) == [100]


def test_neighbouring_lengths_fill_a_batch_while_padding_stays_small() -> None:
    queue = tagger_queue()
    for length in (100, 90, 110, 10, 85, 50):
        push(queue, length)
    assert sorted(lengths_of(next_batch(queue))) == [85, 90, 100, 110]
    assert lengths_of(next_batch(queue)) == [10]
    assert lengths_of(next_batch(queue)) == [50]


def test_given_length_buckets_never_share_a_batch() -> None:
    queue = tagger_queue(length_buckets=(8, 16, 200))
    for length in (7, 8, 9, 16):
        push(queue, length)
    assert [sorted(lengths_of(next_batch(queue))) for _ in range(2)] == [[7, 8], [9, 16]]


@given(st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=9), max_size=12), st.integers(1, 9))
def test_every_row_leaves_once_within_the_limits(requests: list[list[int]], max_items: int) -> None:
    queue = tagger_queue(max_batch_items=max_items, max_batch_steps=300)
    limits = queue.limits
    sent = [push(queue, *lengths, deadline=float(i)) for i, lengths in enumerate(requests)]
    computed: dict[Request, list[int]] = {request: [] for request in sent}
    while (batch := queue.next_batch(-1.0)) is not None:
        lengths = lengths_of(batch)
        assert (len(lengths), max(lengths), sum(lengths)) == (batch.num_rows, batch.longest, batch.steps)
        assert batch.num_rows <= max_items
        assert batch.num_rows == 1 or batch.num_rows * batch.longest <= limits.max_batch_steps
        assert 1 - batch.steps / (batch.num_rows * batch.longest) <= limits.max_waste
        for part in batch.slices:
            computed[part.request] += np.arange(part.request.num_rows)[part.rows].tolist()
    assert all(sorted(numbers) == list(range(request.num_rows)) for request, numbers in computed.items())
    assert (queue.num_rows, queue.counters.queued_items) == (0, 0)


@pytest.mark.parametrize("status", [RequestStatus.CANCELLED, RequestStatus.EXPIRED, RequestStatus.DONE])
def test_discarded_rows_are_never_computed(status: RequestStatus) -> None:
    queue = tagger_queue()
    discarded, remaining = push(queue, 5, 9, 30), push(queue, 9)
    assert queue.discard(discarded, status) == 3
    assert discarded.status is status
    assert [part.request for part in next_batch(queue).slices] == [remaining]
    assert queue.next_batch(0.0) is None
    assert queue.num_rows == 0


def test_expired_requests_are_returned_apart_from_the_slices() -> None:
    queue = tagger_queue()
    expired, pending = push(queue, 9, deadline=1.0), push(queue, 9, deadline=3.0)
    batch = next_batch(queue, now=2.0)
    assert [part.request for part in batch.slices] == [pending]
    assert batch.expired == [expired]
    assert expired.status is RequestStatus.EXPIRED
    assert queue.counters.expired_items == 1


def test_clear_returns_the_waiting_requests() -> None:
    queue = tagger_queue()
    requests = [push(queue, 5, 30), push(queue, 9)]
    assert set(queue.clear()) == set(requests)
    assert queue.next_batch(0.0) is None


def test_queued_work_is_in_the_backlog() -> None:
    backlog = Backlog(1)
    queue = tagger_queue(backlog=backlog, max_batch_items=8)
    queue.cost_model.observe(8, 16, 0.4)
    request = push(queue, *[16] * 12)
    assert backlog.total_s == pytest.approx(0.6)  # twelve times an eighth of a full batch
    next_batch(queue)
    assert backlog.total_s == pytest.approx(0.2)
    queue.discard(request, RequestStatus.CANCELLED)
    assert backlog.total_s == 0


def test_an_estimate_is_the_cost_of_all_rows_and_of_the_slowest_batch() -> None:
    queue = tagger_queue(max_batch_items=8)
    queue.cost_model.observe(8, 16, 0.4)
    queue.cost_model.observe(8, 64, 1.6)
    queue.measured_at = 7.0
    push(queue, 16)
    cost = queue.estimate(request_of(queue, 16, 16, 64))
    assert (cost.num_rows, cost.queued_rows, cost.measured_at) == (3, 1, 7.0)
    assert cost.work_s == pytest.approx(2 * 0.4 / 8 + 1.6 / 8)
    assert cost.batch_s == pytest.approx(1.6)


def test_inline_requests_count_the_steps_that_were_computed() -> None:
    inputs = {name: np.pad(value, [(0, 0), (0, 61), (0, 0)]) if value.ndim == 3 and name == "series" else value
              for name, value in rows(3).items()}  # fmt: skip
    queue = tagger_queue(length_buckets=(8, 16, 32, 64))
    queue.record_inline(inputs, 1, 64, 1e-4)
    assert (queue.counters.steps, queue.counters.padded_steps) == (3, 5)
    mixing = tagger_queue()
    mixing.record_inline(inputs, 1, 64, 1e-4)
    assert (mixing.counters.steps, mixing.counters.padded_steps) == (3, 61)


@pytest.mark.parametrize(
    ("full_s", "sizes"), [(0.8 * INLINE_BUDGET_S, [8, 8, 3]), (1.2 * INLINE_BUDGET_S, [4, 4, 4, 4, 3])]
)
def test_requests_that_arrive_together_form_quick_batches(full_s: float, sizes: list[int]) -> None:
    queue = tagger_queue(max_batch_items=8)
    for num_rows in (1, 2, 4, 8):
        queue.cost_model.observe(num_rows, 10, full_s * num_rows / 8)
    requests = [request_of(queue, 10) for _ in range(19)]
    batches = queue.inline_batches(requests, beside_threads=True)
    assert [batch.num_rows for batch in batches] == sizes
    assert [part.request for batch in batches for part in batch.slices] == requests
    assert queue.num_rows == 0


def test_slow_or_different_requests_form_no_inline_batches() -> None:
    queue, other = tagger_queue(max_batch_items=8), tagger_queue()

    def num_batches(requests: list[Request], *, beside_threads: bool = True) -> int:
        return len(queue.inline_batches(requests, beside_threads=beside_threads))

    assert num_batches([request_of(queue, 10)]) == 0, "no measurement yet"
    for num_rows in (1, 8):
        queue.cost_model.observe(num_rows, 10, 1e-4)
    equal = [request_of(queue, 10), request_of(queue, 10)]
    assert num_batches(equal) == 1
    assert num_batches([*equal, request_of(queue, 50)]) == 0, "of another length"
    assert num_batches([*equal, request_of(queue, 10, 50)]) == 0, "of two lengths"
    assert num_batches([*equal, request_of(other, 10)]) == 0, "for another model"
    assert num_batches([*equal, request_of(queue, *[10] * 8)]) == 0, "a full batch by itself"
    assert num_batches([*equal, request_of(queue, *[10] * 8)], beside_threads=False) == 2, (
        "no other thread could run it"
    )
    equal[0].future.cancel()
    assert num_batches(equal) == 0, "cancelled"


def test_a_row_costs_what_rows_of_up_to_the_next_power_of_two_steps_cost() -> None:
    queue = tagger_queue(max_batch_items=1)
    for num_steps, seconds in ((8, 0.1), (16, 0.2), (32, 0.4)):
        queue.observe(1, num_steps, seconds)
    assert [queue.row_cost(num_steps)[0] for num_steps in (8, 9, 16, 17, 32)] == [0.1, 0.2, 0.2, 0.4, 0.4]


def test_models_without_lengths_share_batches_by_shape() -> None:
    queue = make_queue(collator=Collator(manifest("image-classifier")), max_batch_items=5)
    for batch in (3, 4):
        request = make_request(queue, example_inputs("image-classifier", batch=batch), session=SESSION)
        for part in queue.slices(request):
            queue.push(part)
    # A request that fits a batch of its own is not split.
    assert [next_batch(queue).num_rows for _ in range(2)] == [3, 4]


def test_models_without_lengths_are_batched_by_the_size_of_a_row() -> None:
    """A long prompt, sent as the model's own tensors, is neither quick nor small because shorter ones were."""
    collator = Collator(manifest("language-model"))
    queue = make_queue(collator=collator, max_batch_steps=256)
    short, long = (
        example_inputs("language-model", batch=4) | {"ids": np.zeros((4, num_steps), np.int64)} for num_steps in (1, 99)
    )
    past = collator.num_steps(short) - 1
    assert collator.num_steps(long) == 99 + past
    queue.observe(4, collator.num_steps(short), INLINE_BUDGET_S / 2)
    assert queue.is_quick(4, collator.num_steps(short))
    assert not queue.is_quick(4, collator.num_steps(long))
    queue.record_inline(long, 4, collator.num_steps(long), 1.0)
    assert (queue.counters.steps, queue.counters.padded_steps) == (4 * (99 + past), 0)
    request = make_request(queue, long, session=SESSION)
    for part in queue.slices(request):
        queue.push(part)
    batches = [next_batch(queue), next_batch(queue)]
    assert [batch.num_rows for batch in batches] == [2, 2]
    assert [batch.steps for batch in batches] == [2 * (99 + past)] * 2
