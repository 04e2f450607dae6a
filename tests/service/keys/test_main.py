"""The command prints what the file takes."""

import subprocess
import sys

import pytest

from service.keys.key_file import SCOPES, Key, digest_key, parse_key_file
from tests.e2e.serving import ROOT


def parse(line: str) -> Key:
    (key,) = parse_key_file(line.encode())
    return key


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.keys", "new", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_a_line_for_the_file_and_the_key_beside_it() -> None:
    limits = ("--rate", "5", "--burst", "9", "--concurrency", "2", "--expires", "2030-01-01")
    done = run("bob", "--scopes", ",".join(SCOPES), *limits)
    assert done.returncode == 0
    key, line = done.stderr.strip(), parse(done.stdout)
    assert digest_key(key) == line.digest
    assert key not in done.stdout
    assert (line.name, line.scopes, line.rate, line.burst, line.concurrency) == ("bob", set(SCOPES), 5, 9, 2)


def test_the_command_needs_no_option() -> None:
    assert parse(run("bob").stdout).scopes == {"infer", "models"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("b b",), "expected values without blanks"),
        (("b\nc",), "expected values without blanks"),
        (("b", "--scopes", "all"), "scopes: expected infer, models, metrics, admin, got 'all'"),
        (("b", "--rate", "fast"), "rate: expected requests per second"),
        (("b", "--burst", "3"), "burst= needs rate="),
    ],
)
def test_the_command_makes_no_line_that_the_file_would_not_take(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "ek_" not in done.stderr
