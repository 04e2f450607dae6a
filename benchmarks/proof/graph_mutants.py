"""Draw mutants of every model and count those that export and the goldens of its bundle refuse.

`python -m benchmarks.proof.graph_mutants` assesses 135 mutants of each model in two processes, and prints one line for
each model, one for each kind, and every mutant that is accepted. The exit status is 1 if export accepts a structured
mutant or more than 1 % of the single weights, or if less than 95 % of what export refuses is refused at load.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from export.mutate import Assessment, assess_mutants, is_passed, new_assessor, table

MIN_SHARE_AT_LOAD = 0.95


def assess(name: str, runs: Path, bundles: Path, count: int, seed: int) -> tuple[str, list[Assessment], float]:
    """Assess the mutants of one model, without the functions that made them: those cannot be sent between processes."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    assessor = new_assessor(name, runs=runs, bundles=bundles, seed=seed)
    assessments = [
        replace(assessment, mutant=replace(assessment.mutant, apply=_no_change))
        for assessment in assess_mutants(assessor, count=count, seed=seed)
    ]
    return name, assessments, time.perf_counter() - began


def _no_change(candidate: object) -> object:
    return candidate


def model_table(results: Sequence[tuple[str, list[Assessment], float]]) -> str:
    """A line for each model."""
    header = ("model", "mutants", "equivalent", "refused at export", "by behaviour alone", "at load", "s")
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for name, assessments, seconds in results:
        counts = table(assessments).splitlines()
        total = next(line for line in counts if line.startswith("| all |"))
        lines.append(f"{total.replace('| all |', f'| {name} |')} {seconds:.0f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 the targets are met, 1 they are not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof.graph_mutants")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--mutants", type=int, default=135, help="mutants of each model (default: 135)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(argv)
    names = sorted(path.parent.name for path in options.bundles.glob("[!.]*/current"))
    tasks = [(name, options.runs, options.bundles, options.mutants, options.seed) for name in names]
    with get_context("spawn").Pool(options.processes) as pool:
        results = pool.starmap(assess, tasks, chunksize=1)
    assessments = [assessment for _, members, _ in results for assessment in members]
    print(model_table(results), table(assessments), sep="\n\n")
    different = [assessment for assessment in assessments if assessment.refused_at_export]
    share = sum(assessment.refused_at_load for assessment in different) / max(1, len(different))
    print(f"\n{share:.2%} of what export refuses is refused at load")
    return 0 if is_passed(assessments) and share >= MIN_SHARE_AT_LOAD else 1


if __name__ == "__main__":
    raise SystemExit(main())
