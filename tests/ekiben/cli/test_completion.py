"""Completion in bash, from the parsers that the commands use."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ekiben.cli.completion import SHELLS, main

ROOT = Path(__file__).parents[3]
TRY = """
complete_words() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_ekiben; echo "${COMPREPLY[*]}"
}
"""


@pytest.fixture(scope="module")
def script() -> str:
    command = [sys.executable, "-m", "ekiben", "completion", "bash"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("tr", {"train"}),
        ("train mnist-", {"mnist-mlp", "mnist-cnn", "mnist-gan"}),
        ("score --in", {"--input", "--input-format"}),
        ("score --device c", {"cpu", "cuda"}),
        ("export ke", {"keras"}),
        ("export onnx --gold", {"--golden"}),
        ("completion f", {"fish"}),
    ],
)
def test_bash_completes(words: str, completed: set[str], script: str) -> None:
    code = f"{script}\n{TRY}\ncomplete_words ekiben {words}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == completed


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell != "tcsh" and shutil.which(shell)])
def test_a_script_is_printed_that_the_shell_parses(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([shell]) == 0
    printed = capsys.readouterr().out
    subprocess.run([shell, "-n"], input=printed, capture_output=True, text=True, check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["powerful"])
    assert "'bash', 'zsh', 'fish', 'tcsh'" in capsys.readouterr().err
