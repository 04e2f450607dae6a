"""Workers count together, and the decision of one holds for all."""

from pathlib import Path

import pytest

from service.engine.rollout import tally as module
from service.engine.rollout.tally import MAX_EXAMPLES, Tally


def worker(monkeypatch: pytest.MonkeyPatch, folder: Path | None, number: int, *, candidate: str = "b") -> Tally:
    """A tally as the worker with this number has it."""
    tally = Tally(folder, "tiny-images", "a", candidate, share=0.01)
    share = tally.share

    def share_as_worker() -> None:
        monkeypatch.setattr(module, "process_identity", lambda _: f"{number}-1")
        monkeypatch.setattr(tally, "_shared_at", -1e9)
        share()

    monkeypatch.setattr(tally, "share", share_as_worker)
    return tally


def test_counts_of_all_workers_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = (worker(monkeypatch, tmp_path, number) for number in (1, 2))
    for tally in (first, second):
        for _ in range(400):
            tally.add("same")
        tally.share()
    assert first.decision == "undecided"
    first.share()
    assert (first.decision, second.decision) == ("passed", "passed")
    lines = ["tiny-images: candidate b has passed: 0 answers of 800 differ, 0 failed"]
    assert caplog.messages == lines, "the worker that decides says so"
    second.share()
    assert caplog.messages == lines
    described = first.describe()
    assert (described["compared"], described["here"]) == (800, {"same": 400})


def test_one_worker_stops_a_candidate_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, other = (
        worker(monkeypatch, tmp_path, 1),
        worker(monkeypatch, tmp_path, 2),
        worker(monkeypatch, tmp_path, 3, candidate="c"),
    )
    assert [first.add("different", f"{i} differs") for i in range(9)] == [True] * MAX_EXAMPLES + [False] * 4
    assert first.decision == "stopped"
    for tally in (first, second, other):
        tally.share()
    assert second.decision == "stopped"
    assert second.describe()["examples"] == [f"{i} differs" for i in range(MAX_EXAMPLES)]
    assert other.decision == "undecided", "it is about another candidate"
    for _ in range(100_000):
        first.add("same")
    assert first.decision == "stopped", "a decision is final"


def test_a_worker_without_requests_describes_what_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, idle = (worker(monkeypatch, tmp_path, number) for number in (1, 2))
    for i in range(9):
        busy.add("different", f"{i} differs")
    busy.share()
    described = idle.describe()
    assert (described["decision"], described["different"], described["here"]) == ("stopped", 9, {})
    assert described["examples"] == [f"{i} differs" for i in range(MAX_EXAMPLES)]


def test_a_failure_counts_as_a_difference_and_what_was_skipped_does_not_count() -> None:
    tally = Tally(None, "tiny-images", "a", "b", share=0.01)
    for _ in range(50):
        tally.add("skipped")
    assert (tally.decision, tally.describe()["compared"]) == ("undecided", 0)
    for _ in range(9):
        tally.add("failed", "internal: x")
    tally.share()
    assert (tally.decision, tally.describe()["failed"]) == ("stopped", 9)


def test_a_folder_that_cannot_be_used_leaves_each_worker_to_itself(tmp_path: Path) -> None:
    (tmp_path / "rollout").write_text("")
    tally = Tally(tmp_path, "tiny-images", "a", "b", share=0.01)
    tally.add("same")
    tally.share()
    assert tally.describe()["compared"] == 1
    (tmp_path / "rollout").unlink()
    (tmp_path / "rollout").mkdir()
    (tmp_path / "rollout" / "tiny-images-a-b.9-9").write_text("{")
    other = Tally(tmp_path, "tiny-images", "a", "b", share=0.01)
    other.share()
    assert other.describe()["compared"] == 0
