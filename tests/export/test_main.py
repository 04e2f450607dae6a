"""The command: its exit status, and the words it leaves."""

import subprocess
import sys
from pathlib import Path

import pytest

from export.__main__ import main

ROOT = Path(__file__).parents[2]


def test_a_refused_run_is_named_with_its_reason_and_the_exit_status_is_1(tmp_path: Path) -> None:
    """What is written is the affair of test_process."""
    command = [sys.executable, "-m", "export", str(tmp_path / "nothing"), "--bundles", str(tmp_path / "bundles")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nothing: refused: " in done.stderr
    assert "there is no checkpoint.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bundles").exists()


def test_jobs_must_be_a_positive_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["runs/any", "--jobs", "0"])
    assert exit_.value.code == 2
    assert "--jobs 0: expected 1 or more" in capsys.readouterr().err
