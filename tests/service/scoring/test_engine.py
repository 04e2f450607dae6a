"""Handing out shards, and what became of them."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.scoring import engine
from service.scoring.engine import Queue, attempt
from service.scoring.plan import ReadError, Shard
from tests.service.scoring.test_ledger import shard_of


def test_each_shard_is_handed_out_once() -> None:
    queue = Queue(shard_of(i) for i in range(500))
    taken: list[int] = []

    def take() -> None:
        while (shard := queue.next()) is not None:
            taken.append(shard.number)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(500))


def parts_of(groups: list[tuple[int, int]]) -> Iterator[Shard]:
    """(row group, part of it) in the order of a plan."""
    for number, (group, part) in enumerate(groups):
        shard = shard_of(number)
        yield replace(shard, span=replace(shard.span, start=group, skip=part * 4))


def parts(*shards: Shard | None) -> list[tuple[int, int]]:
    return [(shard.span.start, shard.span.skip // 4) for shard in shards if shard is not None]


def test_parts_of_a_row_group_go_to_one_worker() -> None:
    queue = Queue(parts_of([(group, part) for group in range(4) for part in range(2)]))
    a, b = queue.next(), queue.next()
    assert parts(a, b) == [(0, 0), (1, 0)]
    b, a = queue.next(b), queue.next(a)
    assert parts(a, b) == [(0, 1), (1, 1)]
    a = queue.next(a)
    assert parts(a) == [(2, 0)]
    assert parts(queue.next(a), queue.next(b)) == [(2, 1), (3, 0)]


def test_no_shard_waits_for_others_to_be_planned() -> None:
    planned: list[int] = []

    def shards() -> Iterator[Shard]:
        for number in range(3):
            planned.append(number)
            yield shard_of(number)  # as of a folder: all begin at one place, none is a later part

    queue = Queue(shards())
    assert queue.next() is not None
    assert queue.next() is not None
    assert planned == [0, 1]


def test_a_worker_takes_part_of_a_group_that_another_reads_rather_than_nothing() -> None:
    queue = Queue(parts_of([(0, part) for part in range(30)]))
    a, b = queue.next(), queue.next()
    found = parts(a, b)
    while (a := queue.next(a)) is not None and (b := queue.next(b)) is not None:
        found += parts(a, b)
    assert sorted(found) == [(0, part) for part in range(30)]


def test_a_stopped_queue_hands_out_nothing() -> None:
    queue = Queue(iter([shard_of(0), shard_of(1)]))
    assert queue.next() is not None
    queue.stop()
    assert queue.next() is None


def test_an_error_of_the_plan_is_kept_for_the_engine() -> None:
    def shards() -> Iterator[Any]:
        yield shard_of(0)
        raise KeyError("plan")

    queue = Queue(shards())
    assert queue.next() is not None
    assert queue.next() is None
    assert queue.stopped
    assert isinstance(queue.error, KeyError)


@pytest.mark.parametrize(
    ("result", "fate", "detail"),
    [
        (object(), "done", ""),
        (None, "busy", ""),
        (ReadError("a.csv: gone"), "read", "a.csv: gone"),
        (OSError(28, "No space left on device"), "failed", "rows 0 to 3): OSError: No space left on device"),
        (MemoryError(), "failed", "MemoryError"),
    ],
)
def test_every_fate_has_a_word(result: Any, fate: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def score_shard(*_: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(engine, "score_shard", score_shard)
    found = attempt(None, shard_of(0), lambda rows, rejects: None)  # type: ignore[arg-type]
    assert found[0] == fate
    assert detail in found[1]


def test_a_shard_that_another_process_has_is_busy(tmp_path: Path) -> None:
    class Taken:
        @staticmethod
        def own(shard: Any) -> bool:
            return False

    class Context:
        ledger = Taken()

    assert attempt(Context(), shard_of(0), lambda rows, rejects: None) == ("busy", "")  # type: ignore[arg-type]
