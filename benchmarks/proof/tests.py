"""Prove the tests: change one operator, constant or statement of a module; its tests must fail.

    make prove-tests                                                    every module with a threshold (hours)
    python -m benchmarks.proof.tests service/engine/batching                  the modules under a path
    python -m benchmarks.proof.tests service/manifest.py --mutants 50 --seed 7

Each mutant runs against the tests of its module alone (`service/x/y.py`: `tests/service/x/test_y.py`). Mutants that
change nothing are listed in equivalent.toml, with the reason. The exit status is 1 when a group of modules misses its
threshold.
"""

import argparse
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.proof.source_mutants import Mutant, sample_mutants
from benchmarks.proof.trial import Copy

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Modules under `paths`, of whose mutants the tests must kill the share `threshold`."""

    name: str
    threshold: float
    paths: tuple[str, ...]


# A module belongs to the first group that has it.
GROUPS = (
    Group(
        name="proof",
        threshold=0.95,
        paths=(
            "export/gates",
            "service/bundle.py",
            "service/manifest.py",
            "service/onnx_wire.py",
            "service/engine/verification",
            "service/engine/generation/categorical.py",
            "service/engine/generation/logits.py",
            "service/engine/generation/sampler.py",
            "service/scoring/output/ledger.py",
            "service/scoring/shard.py",
        ),
    ),
    Group(
        name="service",
        threshold=0.90,
        paths=("service/engine", "service/tasks", "service/http", "training/checkpoint.py"),
    ),
)


@dataclass(kw_only=True)
class Score:
    """What became of the mutants of one module."""

    path: str
    seconds: float
    killed: int = 0
    timeouts: int = 0
    equivalent: int = 0
    survivors: list[Mutant] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int]:
        """The killed mutants, and all that change something. A mutant that never ends is killed."""
        killed = self.killed + self.timeouts
        return killed, killed + len(self.survivors)


def modules(paths: Sequence[str]) -> list[str]:
    """The modules of all groups, or those under `paths`."""
    chosen = paths or [path for group in GROUPS for path in group.paths]
    files = {
        file.relative_to(ROOT).as_posix()
        for path in chosen
        for file in ([ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("*.py"))
        if file.name != "__init__.py"
    }
    return sorted(files)


def own_tests(path: str) -> str:
    """The test module of a module."""
    module = Path(path)
    return (Path("tests") / module.parent / f"test_{module.stem.strip('_')}.py").as_posix()


def group_of(path: str) -> Group | None:
    return next(
        (group for group in GROUPS if any(path == name or path.startswith(f"{name}/") for name in group.paths)), None
    )


def read_equivalent(file: Path = EQUIVALENT) -> set[tuple[str, str, str]]:
    """Module, removed lines and added lines of every mutant that changes nothing."""
    entries = tomllib.loads(file.read_text()).get("mutant", [])
    return {(entry["module"], entry["before"], entry["after"]) for entry in entries}


def score_module(copy: Copy, path: str, *, count: int, seed: int) -> Score:
    """Run the tests of the module against its mutants."""
    equivalent, test = read_equivalent(), own_tests(path)
    score = Score(path=path, seconds=copy.time_tests(test))
    for mutant in sample_mutants(path, (ROOT / path).read_text(), count=count, seed=seed):
        if (path, mutant.before, mutant.after) in equivalent:
            score.equivalent += 1
            continue
        outcome = copy.try_mutant(path, mutant.source, test=test, baseline_s=score.seconds)
        score.killed += outcome == "killed"
        score.timeouts += outcome == "timeout"
        if outcome == "survived":
            score.survivors.append(mutant)
            print(f"```diff\n{mutant.diff}\n```\n", flush=True)
    killed, total = score.counts
    print(f"{path}: {killed} of {total} killed", file=sys.stderr, flush=True)
    return score


def report(scores: Sequence[Score]) -> bool:
    """Print the counts of modules and groups; return whether all groups meet their threshold."""
    print("| module | killed | timeouts | survived | equivalent | tests |\n| --- | --- | --- | --- | --- | --- |")
    for score in scores:
        counts = (score.killed, score.timeouts, len(score.survivors), score.equivalent)
        print(f"| {score.path} | {' | '.join(map(str, counts))} | {score.seconds:.1f} s |")
    met = True
    print("\n| group | killed | of | share | threshold |\n| --- | --- | --- | --- | --- |")
    for group in GROUPS:
        counts = [score.counts for score in scores if group_of(score.path) is group]
        killed, total = sum(count[0] for count in counts), sum(count[1] for count in counts)
        if total:
            met &= killed / total >= group.threshold
            print(f"| {group.name} | {killed} | {total} | {killed / total:.1%} | {group.threshold:.0%} |")
    return met


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all thresholds are met, 1 one is missed, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a module or a folder (default: those of all groups)")
    parser.add_argument("--mutants", type=int, default=12, help="of each module (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="selects the mutants (default: %(default)s)")
    options = parser.parse_args(argv)
    print(f"seed {options.seed}, {options.mutants} mutants of each module\n")
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy.of(ROOT, Path(folder))
        scores = [score_module(copy, path, count=options.mutants, seed=options.seed) for path in modules(options.paths)]
    return 0 if report(scores) else 1


if __name__ == "__main__":
    sys.exit(main())
