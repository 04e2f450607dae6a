"""Every attack in docs/bundle.md and docs/security.md has its test: a row names a test that pytest collects.

It may name one case of a test.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEADERS = {
    "bundle.md": "| attack | defence | test |\n| --- | --- | --- |\n",
    "security.md": "| abuse | what stops it | test |\n| --- | --- | --- |\n",
}
ROW = re.compile(r"^\| (.+?) \| (.+?) \| `(.+?)` \|$", re.MULTILINE)
MIN_ATTACKS = {"bundle.md": 80, "security.md": 30}
# One test of several attacks, whose cases have no names.
SHARED = {"service/test_bundle.py::test_changed_manifest_is_refused"}


def rows(page: str) -> list[tuple[str, str, str]]:
    """Return attack, defence and test of every row of a page of docs/."""
    parts = (ROOT / "docs" / page).read_text().split(HEADERS[page])
    tables = [part.partition("\n\n")[0] for part in parts[1:]]
    found = [match.groups() for table in tables for match in ROW.finditer(table)]
    assert len(found) == sum(table.strip().count("\n") + 1 for table in tables), "a row has another form"
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("page", HEADERS)
def test_there_are_many_attacks_and_no_attack_stands_twice(page: str) -> None:
    assert len(rows(page)) >= MIN_ATTACKS[page]
    assert [attack for attack, count in Counter(attack for attack, _, _ in rows(page)).items() if count > 1] == []
    tests = Counter(test for _, _, test in rows(page))
    assert {test for test, count in tests.items() if count > 1} <= SHARED


def test_every_attack_has_its_test() -> None:
    tests = [test for page in HEADERS for _, _, test in rows(page)]
    files = sorted({f"tests/{test.partition('::')[0]}" for test in tests})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    result = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    cases = {line.removeprefix("tests/") for line in result.stdout.splitlines()}
    names = cases | {case.partition("[")[0] for case in cases}
    assert [test for test in tests if test not in names] == []
