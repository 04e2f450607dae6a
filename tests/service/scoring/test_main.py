"""The command ends in an orderly way from its first moment on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.scoring.__main__ import command_parser, main
from service.scoring.command import command
from tests.e2e.serving import ROOT

UNBEGUN = "terminated before the job began; the same command begins or resumes it\n"


@pytest.mark.parametrize("words", [("service.scoring",), ("ekiben", "score")])
def test_sigterm_while_modules_are_imported_is_answered(words: tuple[str, ...], tmp_path: Path) -> None:
    """`-X importtime` tells when the first module of the job is there; many follow."""
    arguments = [*words, "--model", "m", "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    command_line = [sys.executable, "-X", "importtime", "-m", *arguments]
    with subprocess.Popen(command_line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("numpy" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        lines = process.stderr.readlines()
    assert process.returncode == 143
    assert lines[-1].endswith(UNBEGUN)
    assert not (tmp_path / "out").exists()


def test_an_interruption_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "run", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == "interrupted; the same command resumes the job\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_status_is_a_command_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "no scoring job is there" in capsys.readouterr().err


def test_the_parser_is_found_by_completion() -> None:
    assert command_parser().prog == "python -m service.scoring"
