"""Which rows run in a step, and how many chunks of prompts beside them."""

from typing import Any

import numpy as np
import pytest

from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import BatchCache
from service.engine.generation.scheduler import DecodeBatch, Scheduler
from service.engine.generation.sequence import RowStatus

HEAD = LanguageModelHead(layers=1, heads=1, head_size=2)
ROW_BYTES = 64 * 2 * 2 * 4


class Row:
    """The part of a sequence that the scheduler reads."""

    def __init__(self, num_tokens: int, max_capacity: int) -> None:
        self.prompt = np.arange(num_tokens)
        self.max_capacity = max_capacity
        self.position = num_tokens + 1
        self.status = RowStatus.WAITING
        self.cache: Any = None
        self.is_cancelled = False


def row(num_tokens: int = 5, *, max_capacity: int = 64) -> Any:
    return Row(num_tokens, max_capacity)


def scheduler(*rows: Any, max_rows: int = 8, max_bytes: int = 1 << 20) -> Scheduler:
    created = Scheduler(HEAD, 512, max_rows=max_rows, max_bytes=max_bytes)
    created.add(rows)
    return created


def start(created: Scheduler, one: Any) -> None:
    """As if its prompt had been read."""
    one.cache = created.new_cache()
    one.cache.append((np.ones((1, one.prompt.size, 2), np.float32),) * 2)
    created.start_decoding(one)


def runs(created: Scheduler) -> list[Any]:
    return [work.rows if isinstance(work, DecodeBatch) else work for work in created.plan()]


def test_a_step_decodes_first_and_then_reads_chunks_within_the_budget() -> None:
    rows = [row(), row(), row(200), row(40)]
    created = scheduler(*rows)
    # 128 tokens are four chunks: the first two prompts, and two chunks of the third.
    assert runs(created) == [rows[0], rows[1], rows[2], rows[2]]
    start(created, rows[0])
    start(created, rows[1])
    assert runs(created) == [[rows[0], rows[1]], rows[2], rows[2], rows[2]]


def test_a_step_reads_at_least_one_chunk() -> None:
    rows = [row() for _ in range(120)]
    created = scheduler(*rows, max_rows=130)
    runs(created)
    for one in rows:
        start(created, one)
    late = row(64)
    created.add([late])
    assert runs(created) == [rows, late]


def test_rows_are_admitted_in_order_while_places_and_memory_are_free() -> None:
    rows = [row() for _ in range(4)]
    created = scheduler(*rows, max_rows=3)
    assert runs(created) == rows[:3]
    created.remove(rows[1])
    assert runs(created) == [rows[0], rows[2], rows[3]]
    created = scheduler(*(rows := [row(), row(max_capacity=128), row()]), max_bytes=2 * ROW_BYTES)
    assert runs(created) == rows[:1]  # a small row does not overtake a large one
    assert created.reserved_bytes == ROW_BYTES
    created.remove(rows[0])
    assert runs(created) == rows[1:2]
    large = row(max_capacity=512)
    assert runs(scheduler(large, max_bytes=ROW_BYTES)) == [large]


def test_a_row_moves_when_its_next_token_needs_a_larger_cache() -> None:
    grown, other = row(63), row(10)
    created = scheduler(grown, other)
    created.plan()
    start(created, grown)
    start(created, other)
    (batch,) = created.plan()
    assert isinstance(batch, DecodeBatch)
    grown.position = 65
    created.move_grown(batch)
    larger, smaller = created.plan()
    assert isinstance(larger, DecodeBatch)
    assert isinstance(smaller, DecodeBatch)
    assert (larger.cache.capacity, larger.rows) == (128, [grown])
    assert (smaller.cache.capacity, smaller.rows) == (64, [other])


def test_a_batch_that_failed_is_divided_and_takes_no_new_rows() -> None:
    rows = [row(), row(), row()]
    created = scheduler(*rows)
    created.plan()
    start(created, rows[0])
    start(created, rows[1])
    batch = created.plan()[0]
    assert isinstance(batch, DecodeBatch)
    created.isolate(batch)
    start(created, rows[2])
    assert runs(created) == [[rows[0]], [rows[1]], [rows[2]]]


def lacks_memory(*_: object, **__: object) -> None:
    raise MemoryError


def test_a_row_that_finds_no_memory_to_decode_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    one = row()
    created = scheduler(one)
    created.plan()
    with monkeypatch.context() as patched:
        patched.setattr(BatchCache, "add", lacks_memory)
        with pytest.raises(MemoryError):
            start(created, one)
    assert created.rows() == [one]
    created.remove(one)
    assert (created.num_running, created.reserved_bytes, runs(created)) == (0, 0, [])


def test_a_batch_that_finds_no_memory_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(), row()]
    created = scheduler(*rows)
    created.plan()
    for one in rows:
        start(created, one)
    (batch,) = created.plan()
    assert isinstance(batch, DecodeBatch)
    add = BatchCache.add

    def add_once(cache: BatchCache, *args: Any) -> None:
        add(cache, *args)
        monkeypatch.setattr(BatchCache, "add", lacks_memory)

    monkeypatch.setattr(BatchCache, "add", add_once)
    with pytest.raises(MemoryError):
        created.isolate(batch)
    assert created.rows() == rows


def test_all_rows_are_forgotten_without_their_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row() for _ in range(5)]
    created = scheduler(*rows, max_rows=4)
    created.plan()
    for one in rows[:3]:
        start(created, one)
    (batch, *_) = created.plan()
    assert isinstance(batch, DecodeBatch)
    monkeypatch.setattr(BatchCache, "remove", lacks_memory)
    rows[0].position = 65
    with pytest.raises(MemoryError):
        created.move_grown(batch)  # it is in both batches now
    assert [sorted(map(rows.index, part)) for part in created.clear()] == [[0, 1, 2, 3], [4]]
    assert {one.status for one in rows[:4]} == {RowStatus.FINISHED}
    assert (created.num_running, created.reserved_bytes, runs(created)) == (0, 0, [])


def test_cancelled_rows_leave_before_the_step() -> None:
    rows = [row() for _ in range(5)]
    created = scheduler(*rows, max_rows=3)
    created.plan()
    start(created, rows[0])
    for number in (0, 1, 4):
        rows[number].is_cancelled = True
    assert created.drop_cancelled() == 3
    assert runs(created) == [rows[2], rows[3]]
    assert created.num_running == 2
    assert created.reserved_bytes == 2 * ROW_BYTES
