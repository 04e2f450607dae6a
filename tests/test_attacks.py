"""Every attack in docs/bundle.md has its test: a row names a test, or one case of it, that pytest collects."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEADER = "| attack | defence | test |\n| --- | --- | --- |\n"
ROW = re.compile(r"^\| (.+?) \| (.+?) \| `(.+?)` \|$", re.MULTILINE)
MIN_ATTACKS = 80
# One test of several attacks, whose cases have no names.
SHARED = {"service/test_bundle.py::test_changed_manifest_is_refused"}


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, str]]:
    page = (ROOT / "docs" / "bundle.md").read_text()
    tables = [part.partition("\n\n")[0] for part in page.split(HEADER)[1:]]
    found = [match.groups() for table in tables for match in ROW.finditer(table)]
    assert len(found) == sum(table.strip().count("\n") + 1 for table in tables), "a row has another form"
    return found  # type: ignore[return-value]


def test_there_are_many_attacks_and_no_attack_stands_twice(rows: list[tuple[str, str, str]]) -> None:
    assert len(rows) >= MIN_ATTACKS
    assert [attack for attack, count in Counter(attack for attack, _, _ in rows).items() if count > 1] == []
    tests = Counter(test for _, _, test in rows)
    assert {test for test, count in tests.items() if count > 1} <= SHARED


def test_every_attack_has_its_test(rows: list[tuple[str, str, str]]) -> None:
    files = sorted({f"tests/{test.partition('::')[0]}" for _, _, test in rows})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    result = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    cases = {line.removeprefix("tests/") for line in result.stdout.splitlines()}
    names = cases | {case.partition("[")[0] for case in cases}
    assert [test for _, _, test in rows if test not in names] == []
