"""What a job shows and reports while it runs."""

import time
from pathlib import Path

import pytest

from service.scoring.progress import Progress, Snapshot
from service.scoring.watch import reporter as module
from service.scoring.watch.reporter import Display, Reporter


def run(display: Display, progress: Progress, seconds: float = 0.0) -> None:
    with Reporter("job", progress, display=display) as reporter:
        time.sleep(seconds)
        reporter.message("a [bracket] " + "x" * 300)


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.add_planned(15, committed=False)
    progress.add_done(15, 2)
    run("bar", progress)
    displayed = capsys.readouterr().err
    assert "15/15" in displayed
    assert "2 rejected" in displayed
    assert "a [bracket]" in displayed


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_INTERVAL_S", 0.05)
    monkeypatch.setattr(module, "TICK_S", 0.01)
    progress = Progress()
    progress.add_planned(10, committed=True)
    run("lines", progress, 0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    lines.remove("a [bracket] " + "x" * 300)  # whole, however long
    assert all(line.startswith("job: 10 of at least 10 rows, 0/s") for line in lines)


def test_nothing_is_shown_unless_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_INTERVAL_S", 0.05)
    monkeypatch.setattr(module, "TICK_S", 0.01)
    with Reporter("job", Progress(), display="none"):
        time.sleep(0.2)
    assert capsys.readouterr() == ("", "")


def test_reports_and_the_callback_get_the_progress_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    progress = Progress()
    seen: list[Snapshot] = []
    reported: list[Snapshot] = []
    with Reporter("job", progress, display="none", reports=[reported.append], on_progress=seen.append):
        time.sleep(0.1)
        progress.add_done(3, 1)
    assert len(seen) > 3
    assert (seen[0].rows, seen[-1].rows, seen[-1].rejected) == (0, 3, 1)
    assert (reported[0].rows, reported[-1].rows) == (0, 3)


def test_a_report_that_fails_is_told_once_and_stops_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    monkeypatch.setattr(module, "REPORT_INTERVAL_S", 0.01)
    seen: list[Snapshot] = []

    def fail(snapshot: Snapshot) -> None:
        raise OSError("no route")

    with Reporter("job", Progress(), display="none", reports=[fail, seen.append]):
        time.sleep(0.2)
    assert len(seen) > 3
    assert capsys.readouterr().err == "progress is not reported: OSError: no route\n"
