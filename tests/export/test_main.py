"""The command: its exit status, and the words it leaves."""

import subprocess
import sys
from pathlib import Path

import pytest

from export.__main__ import main
from tests.export.conftest import registered_run

ROOT = Path(__file__).parents[2]


def test_the_command_writes_what_passes_and_names_what_does_not(tmp_path: Path) -> None:
    runs = [registered_run(tmp_path / "runs" / "my-digits"), tmp_path / "runs" / "nothing"]
    command = [sys.executable, "-m", "export", *map(str, runs), "--bundles", str(tmp_path / "bundles"), "--jobs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nothing: refused: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "my-digits" in done.stderr
    assert (tmp_path / "bundles" / "my-digits" / "current").is_file()
    assert not (tmp_path / "bundles" / "nothing").exists()


def test_jobs_must_be_a_positive_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["runs/any", "--jobs", "0"])
    assert exit_.value.code == 2
    assert "--jobs 0: expected 1 or more" in capsys.readouterr().err
