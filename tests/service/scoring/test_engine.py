"""Handing out shards, and what became of them."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.scoring import engine
from service.scoring.engine import Queue, attempt
from service.scoring.plan import ReadError
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
