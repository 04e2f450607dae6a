"""The mutation tester changes one thing at a time, never the checkout, and counts what the tests miss."""

import ast
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.proof import tests as proof
from benchmarks.proof import trial
from benchmarks.proof.source_mutants import sample_mutants
from benchmarks.proof.trial import Copy
from tests.service.hosts import ended, wait_until

SOURCE = '''"""Adds and compares."""

from functools import cached_property

LIMIT = 3


class Pair:
    @cached_property
    def total(self) -> int | None:
        return 1 + 2


def check(value: int) -> bool:
    if value < LIMIT:
        raise ValueError("the value is below the limit")
    logger.info("checked")
    return value == 4
'''
WEAK_TEST = "from small import check\n\n\ndef test_check():\n    assert check(4)\n"


def test_mutants_are_other_programs_with_one_change() -> None:
    mutants = sample_mutants("small.py", SOURCE, count=1000, seed=0)
    assert len({mutant.source for mutant in mutants}) == len(mutants) > 8
    for mutant in mutants:
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(SOURCE))
        assert len(mutant.before.splitlines()) == len(mutant.after.splitlines()) == 1
        assert mutant.after in mutant.diff


def test_constants_of_a_module_and_decorated_functions_are_changed() -> None:
    chosen = [sample_mutants("small.py", SOURCE, count=1000, seed=seed) for seed in range(8)]
    after = {mutant.after for mutants in chosen for mutant in mutants}
    assert {"LIMIT = 4", "return 1 - 2", "return None", "pass", "if value <= LIMIT:", "return value != 4"} <= after
    assert not any("logger" in line or "XX" in line for line in after)


def test_a_seed_selects_the_mutants() -> None:
    def some(seed: int) -> list[str]:
        return [mutant.source for mutant in sample_mutants("small.py", SOURCE, count=4, seed=seed)]

    assert len(some(1)) == 4
    assert some(1) == some(1) != some(2)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "small.py").write_text(SOURCE.replace('    logger.info("checked")\n', ""))
    (folder / "test_small.py").write_text(WEAK_TEST)
    (folder / ".gitignore").write_text("ignored\n")
    (folder / "ignored").write_text("a build output")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def test_a_mutant_is_tried_in_a_copy(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (checkout / "small.py").read_text()
    copy = Copy.of(checkout, tmp_path / "copy")
    assert not (copy.folder / "ignored").exists()
    seconds = copy.time_tests("test_small.py")
    assert seconds > 0

    def outcome(before: str, after: str) -> str:
        assert before in source
        return copy.try_mutant("small.py", source.replace(before, after), test="test_small.py", baseline_s=seconds)

    assert outcome("value == 4", "value != 4") == "killed"
    assert outcome("value < LIMIT", "value <= LIMIT") == "survived"
    monkeypatch.setattr(trial, "MIN_LIMIT_S", 0.5)
    monkeypatch.setattr(trial, "SLOWDOWN", 1.0)
    assert outcome("LIMIT = 3", "LIMIT = 3\nwhile True: pass") == "timeout"
    assert (copy.folder / "small.py").read_text() == (checkout / "small.py").read_text() == source


def test_tests_that_fail_without_a_mutant_prove_nothing(checkout: Path, tmp_path: Path) -> None:
    (checkout / "test_small.py").write_text("def test_fails():\n    raise AssertionError\n")
    with pytest.raises(ValueError, match=r"test_small\.py fails without a mutant"):
        Copy.of(checkout, tmp_path / "copy").time_tests("test_small.py")


def test_the_tests_of_a_killed_run_end_with_it(checkout: Path) -> None:
    pid = checkout / "pid"
    (checkout / "test_small.py").write_text(
        f"import os, pathlib\npathlib.Path({str(pid)!r}).write_text(f'{{os.getpid()}}\\n')\nwhile True:\n    pass\n"
    )
    code = f"from pathlib import Path\nfrom benchmarks.proof.trial import Copy\nCopy(folder=Path({str(checkout)!r}))"
    with subprocess.Popen([sys.executable, "-c", f"{code}.time_tests('test_small.py')"], cwd=proof.ROOT) as run:
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        tests = psutil.Process(int(pid.read_text()))
        run.kill()
        wait_until(lambda: ended(tests))


def score(path: str, *, killed: int, survived: int, timeouts: int = 0) -> proof.Score:
    mutants = sample_mutants("small.py", SOURCE, count=survived, seed=0)
    assert len(mutants) == survived
    return proof.Score(path=path, seconds=1.0, killed=killed, timeouts=timeouts, survivors=mutants)


def test_each_group_must_meet_its_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    assert proof.report([score("service/bundle.py", killed=18, timeouts=1, survived=1)])
    assert not proof.report([score("service/bundle.py", killed=18, survived=1)])
    assert proof.report([score("service/engine/runner.py", killed=18, survived=2)])
    assert not proof.report([score("service/engine/runner.py", killed=8, survived=1)])
    assert "| service | 8 | 9 | 88.9% | 90% |" in capsys.readouterr().out
    # One group cannot make up for the other.
    assert not proof.report(
        [score("service/engine/runner.py", killed=900, survived=0), score("service/bundle.py", killed=9, survived=1)]
    )


def test_every_module_of_a_group_has_its_tests() -> None:
    paths = proof.modules([])
    assert "service/engine/batching/queue.py" in paths
    assert all((proof.ROOT / path).is_file() and (proof.ROOT / proof.own_tests(path)).is_file() for path in paths)
    assert all(proof.modules([path]) for group in proof.GROUPS for path in group.paths)
    assert proof.group_of("service/engine/generation/sampler.py") is proof.GROUPS[0]
    assert proof.group_of("service/engine/generation/loop.py") is proof.GROUPS[1]
    assert proof.group_of("service/settings.py") is None


def test_equivalent_mutants_are_lines_of_their_modules() -> None:
    for module, before, _ in proof.read_equivalent():
        lines = [line.strip() for line in (proof.ROOT / module).read_text().splitlines()]
        assert before.splitlines()[0] in lines, f"{module}: {before}"
