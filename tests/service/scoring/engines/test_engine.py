"""The queue of shards, and the status of a scored shard."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.scoring.engines import engine
from service.scoring.engines.engine import Cancellation, ShardQueue, try_score
from service.scoring.plan import ChangedError, ReadError, SharedShard
from service.scoring.shard import ModelError
from tests.service.scoring.output.test_ledger import shard_of as job_shard_of
from tests.service.scoring.test_job import job_of


def shard_of(number: int) -> SharedShard:
    return SharedShard(shards={0: job_shard_of(number)})


def test_each_shard_is_handed_out_once() -> None:
    queue = ShardQueue(shard_of(i) for i in range(500))
    taken: list[int] = []

    def drain() -> None:
        while (shard := queue.next_shard()) is not None:
            taken.append(shard.first.number)

    threads = [threading.Thread(target=drain) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(500))


def parts_of(groups: list[tuple[int, int]]) -> Iterator[SharedShard]:
    """Shards in the order of a plan, given as (row group, part of it)."""
    for number, (group, part) in enumerate(groups):
        shard = job_shard_of(number)
        yield SharedShard(shards={0: replace(shard, span=replace(shard.span, start=group, skip=part * 4))})


def parts(*shards: SharedShard | None) -> list[tuple[int, int]]:
    spans = [shard.first.span for shard in shards if shard is not None]
    return [(span.start, span.skip // 4) for span in spans]


def test_parts_of_a_row_group_go_to_one_worker() -> None:
    queue = ShardQueue(parts_of([(group, part) for group in range(4) for part in range(2)]))
    a, b = queue.next_shard(), queue.next_shard()
    assert parts(a, b) == [(0, 0), (1, 0)]
    b, a = queue.next_shard(b), queue.next_shard(a)
    assert parts(a, b) == [(0, 1), (1, 1)]
    a = queue.next_shard(a)
    assert parts(a) == [(2, 0)]
    assert parts(queue.next_shard(a), queue.next_shard(b)) == [(2, 1), (3, 0)]


def test_queue_plans_no_further_than_the_requested_shard() -> None:
    planned: list[int] = []

    def shards() -> Iterator[SharedShard]:
        for number in range(3):
            planned.append(number)
            # The shards of a folder of images all start at position 0, and none is a later part of a row group.
            yield shard_of(number)

    queue = ShardQueue(shards())
    assert queue.next_shard() is not None
    assert queue.next_shard() is not None
    assert planned == [0, 1]


def test_idle_worker_gets_a_part_of_a_row_group_in_use() -> None:
    queue = ShardQueue(parts_of([(0, part) for part in range(30)]))
    a, b = queue.next_shard(), queue.next_shard()
    found = parts(a, b)
    while (a := queue.next_shard(a)) is not None and (b := queue.next_shard(b)) is not None:
        found += parts(a, b)
    assert sorted(found) == [(0, part) for part in range(30)]


def test_stopped_queue_returns_none() -> None:
    queue = ShardQueue(iter([shard_of(0), shard_of(1)]))
    assert queue.next_shard() is not None
    queue.stopped = True
    assert queue.next_shard() is None


def test_planning_error_stops_the_queue_and_is_stored() -> None:
    def shards() -> Iterator[Any]:
        yield shard_of(0)
        raise KeyError("plan")

    queue = ShardQueue(shards())
    assert queue.next_shard() is not None
    assert queue.next_shard() is None
    assert queue.stopped
    assert isinstance(queue.error, KeyError)


@pytest.mark.parametrize(
    ("result", "status", "detail"),
    [
        ({0: 4}, "done", ""),
        (None, "locked", ""),
        (ReadError("a.csv: truncated"), "unreadable", "a.csv: truncated"),
        (OSError(28, "No space left on device"), "failed", "rows 0 to 3): OSError: No space left on device"),
        (MemoryError(), "failed", "MemoryError"),
        (
            ModelError(job_of(Path("out")), OSError(28, "No space left on device")),
            "failed",
            "tiny-texts 000000000000: shard 00000-000000 (in.csv, rows 0 to 3): OSError: No space left on device",
        ),
    ],
)
def test_every_result_maps_to_a_status(result: Any, status: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def score_shard(*_: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(engine, "score_shard", score_shard)
    found = try_score(None, shard_of(0), lambda rows, rejects: None)  # type: ignore[arg-type]
    assert found.status == status
    assert detail in found.detail


def test_shard_locked_by_another_process_has_status_locked(tmp_path: Path) -> None:
    class Taken:
        @staticmethod
        def try_lock(shard: Any) -> bool:
            return False

    class OneJob:
        ledger = Taken()

    class Context:
        jobs = (OneJob(),)

    found = try_score(Context(), shard_of(0), lambda rows, rejects: None)  # type: ignore[arg-type]
    assert (found.status, found.detail) == ("locked", "")


def test_a_locked_shard_is_handed_out_again_after_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "POLL_S", 0.05)
    queue = ShardQueue(shard_of(i) for i in range(3))
    first = queue.next_shard()
    assert first is not None
    queue.put_back(first)
    rest = [queue.next_shard(), queue.next_shard()]
    assert [shard and shard.first.number for shard in rest] == [1, 2]
    assert queue.next_shard() == first
    assert queue.next_shard() is None


def test_a_stopped_queue_does_not_wait_for_locked_shards() -> None:
    queue = ShardQueue(shard_of(i) for i in range(1))
    shard = queue.next_shard()
    assert shard is not None
    queue.put_back(shard)
    queue.stopped = True
    assert queue.next_shard() is None


@pytest.mark.parametrize("grace_s", [0.0, 60.0])
def test_a_cancellation_expires_after_its_grace(grace_s: float) -> None:
    event = threading.Event()
    cancellation = Cancellation(event, grace_s)
    assert not cancellation.requested
    assert not cancellation.expired
    event.set()
    assert cancellation.requested
    assert cancellation.expired == (grace_s == 0)


def test_a_changed_file_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def score_shard(*_: Any) -> None:
        raise ChangedError("a.csv: the file was changed while the job ran")

    monkeypatch.setattr(engine, "score_shard", score_shard)
    found = try_score(None, shard_of(0), lambda rows, rejects: None)  # type: ignore[arg-type]
    assert (found.status, found.detail) == ("failed", "a.csv: the file was changed while the job ran")
