"""`ekiben`: one command for all stages, in any environment."""

import subprocess
import sys
from pathlib import Path

import pytest

from ekiben.__main__ import main
from ekiben.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
SCREEN_LINES, SCREEN_COLUMNS = 32, 120


def run(*words: str, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `python -m ekiben`; isolated, without any installed package."""
    flags = ["-S"] if isolated else []
    command = [sys.executable, *flags, "-m", "ekiben", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_fits_one_screen_and_names_every_command() -> None:
    done = run("--help", isolated=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= SCREEN_LINES
    assert max(map(len, lines)) <= SCREEN_COLUMNS
    named = {line.split()[0] for line in lines if line.startswith("  ")}
    assert {*COMMANDS, "completion", "--version"} <= named
    assert done.stdout.count("  ekiben ") >= 5


def test_help_imports_no_stage() -> None:
    code = (
        "import sys; sys.path.insert(0, '.'); from ekiben.__main__ import main; main(['--help']); "
        "heavy = {'training', 'export', 'service', 'numpy', 'shtab'}; "
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_is_known_without_any_package() -> None:
    done = run("--version", isolated=True)
    assert done.returncode == 0
    assert done.stdout.startswith("ekiben 0.1.0")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "usage: ekiben COMMAND"),
        (["trian"], 2, "unknown command 'trian'; did you mean train?"),
        (["deploy-it"], 2, "unknown command 'deploy-it'; commands are train, export"),
    ],
)
def test_what_is_no_command_exits_with_2(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == status
    assert said in capsys.readouterr().err


def test_ctrl_c_is_reported_as_shells_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str, words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ekiben.__main__.run_command", interrupted)
    assert main(["train", "mnist-cnn"]) == 130
