"""The command line: exit status and messages."""

import subprocess
import sys
from pathlib import Path

import pytest

from export.__main__ import main

ROOT = Path(__file__).parents[2]


def test_a_refused_run_is_printed_with_its_reason_and_exit_status_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", str(tmp_path / "nothing"), "--bundles", str(tmp_path / "bundles")]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert "nothing: refused: " in completed.stderr
    assert "there is no checkpoint.json" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "bundles").exists()


def test_jobs_must_be_a_positive_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["runs/any", "--jobs", "0"])
    assert exit_.value.code == 2
    assert "--jobs 0: expected 1 or more" in capsys.readouterr().err
