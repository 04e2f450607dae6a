"""The state of a job, from its output folder alone."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.scoring.output.ledger import Ledger
from service.scoring.progress import Progress
from service.scoring.watch import status as module
from service.scoring.watch.status import ProgressFile, main, read_status
from tests.service.scoring.conftest import Score
from tests.service.scoring.engines.test_local import ROOT, command

MakeInput = Callable[[str, int], tuple[str, Path]]


def test_a_finished_job(
    make_input: MakeInput, score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family, source = make_input("csv", 40)
    score(family, source, tmp_path / "out")
    assert main([str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path}/out: finished, tiny-texts ")
    assert lines[1:] == ["rows       40 of 40 committed in 3 shards", "rejected   0"]


def test_a_job_that_is_stopped_exits_with_1(
    make_input: MakeInput, score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family, source = make_input("csv", 40)
    score(family, source, tmp_path / "out")
    (tmp_path / "out" / "_ledger" / "done.json").unlink()
    (tmp_path / "out" / "_ledger" / "shards" / "00000-000001.json").unlink()
    assert main([str(tmp_path / "out"), "--json"]) == 1
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["rows"], state["shards"], state["planned"]) == ("stopped", 24, 2, None)


@pytest.mark.parametrize("name", ["nothing", "folder"])
def test_a_folder_without_a_job_exits_with_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    assert main([str(tmp_path / name)]) == 2
    assert "no scoring job is there" in capsys.readouterr().err


def test_a_running_job_shows_its_rate_workers_and_time_left(
    make_input: MakeInput, served_bundles: Path, tmp_path: Path
) -> None:
    family, source = make_input("text", 16 * 800)
    output = tmp_path / "out"
    job = subprocess.Popen(command(family, source, output, served_bundles), cwd=ROOT, stdout=-3, stderr=-3)
    try:
        seen = []
        while job.poll() is None:
            state = read_status(output) if output.exists() else None
            if state is not None and state["processes"]:
                seen.append(state)
            time.sleep(0.05)
    finally:
        job.kill()
        job.wait()
    running = [state for state in seen if state["state"] == "running"]
    assert running
    assert {state["workers"] for state in running} == {2}
    assert max(state["rows"] for state in running) > 0
    finished = read_status(output)
    assert finished is not None
    assert (finished["state"], finished["rows"], finished["processes"]) == ("finished", 16 * 800, [])


def test_progress_of_a_dead_or_silent_process_does_not_count(
    make_input: MakeInput, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, source = make_input("csv", 20)
    output = tmp_path / "out"
    score(family, source, output)
    ledger = Ledger(output)
    ledger.resume()
    ProgressFile(ledger)(Progress().snapshot())

    def state() -> str:
        status = read_status(output)
        assert status is not None
        return str(status["state"])

    assert state() == "running"
    monkeypatch.setattr(module, "STALE_S", -1.0)
    assert state() == "stopped"
    monkeypatch.undo()
    [path] = (output / "_ledger" / "progress").iterdir()
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "pid": 1 << 22}))
    assert state() == "stopped"
    path.write_text(json.dumps({**content, "pid": 1 << 22, "host": "another"}))
    assert state() == "running"
