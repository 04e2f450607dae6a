"""Counts of a job, their rate, and the time that is left."""

import threading
from types import SimpleNamespace

import pytest

from service.scoring import progress as module
from service.scoring.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))  # other threads keep their clock
    return now


def test_rows_and_rejects_add_up_and_committed_rows_count(clock: list[float]) -> None:
    progress = Progress()
    progress.workers = 2
    progress.add_planned(10, committed=False)
    progress.add_planned(5, committed=True)
    progress.add_done(7, 1)
    progress.add_done(-7, -1)
    clock[0] += 2
    progress.add_done(6, 2)
    snapshot = progress.snapshot()
    assert (snapshot.rows, snapshot.rejected, snapshot.planned, snapshot.is_planned) == (11, 2, 15, False)
    assert snapshot.rows_per_s == pytest.approx(3.0)
    assert snapshot.seconds_left == pytest.approx(4 / 3)
    assert str(snapshot) == "11 of at least 15 rows, 3/s, 2 rejected, 2 workers, 1 s left"
    progress.end_plan()
    assert str(progress.snapshot()).startswith("11 of 15 rows")
    assert (progress.rows, progress.rejected) == (6, 2)


def test_the_rate_is_that_of_the_last_seconds(clock: list[float]) -> None:
    progress = Progress()
    for _ in range(100):
        clock[0] += 1
        progress.add_done(1000, 0)
        progress.snapshot()
    for _ in range(40):
        clock[0] += 1
        progress.add_done(1, 0)
        snapshot = progress.snapshot()
    assert snapshot.rows_per_s == pytest.approx(1, rel=0.1)


def test_nothing_done_has_no_rate_and_no_end(clock: list[float]) -> None:
    progress = Progress()
    progress.add_planned(10, committed=False)
    snapshot = progress.snapshot()
    assert (snapshot.rows_per_s, snapshot.seconds_left) == (0, None)
    assert "left" not in str(snapshot)


def test_counts_of_many_threads_add_up() -> None:
    progress = Progress()

    def count() -> None:
        for _ in range(2000):
            progress.add_done(1, 1)
            progress.add_planned(1, committed=True)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = progress.snapshot()
    assert (progress.rows, progress.rejected, snapshot.planned) == (8000, 8000, 8000)
