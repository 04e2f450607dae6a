"""The command: few options, and a sentence for what cannot be."""

import os
import subprocess
import sys

import pytest

from tests.e2e.serving import ROOT, environment


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**settings), capture_output=True, text=True, timeout=120, check=False
    )


def test_the_options_are_few() -> None:
    done = run("--help")
    assert done.returncode == 0
    options = {word for word in done.stdout.split() if word.startswith("--")}
    assert options == {"--help", "--host", "--port", "--workers"}


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("--workers", "0"), {}, "--workers: expected at least 1, got 0"),
        ((), {"EKIBEN_GRACE_S": "never"}, "EKIBEN_GRACE_S='never'"),
        ((), {"EKIBEN_GRACES": "1"}, "no such setting: EKIBEN_GRACES"),
    ],
)
def test_what_cannot_be_is_said(arguments: tuple[str, ...], settings: dict[str, str], said: str) -> None:
    done = run(*arguments, **settings)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert os.linesep in done.stderr
