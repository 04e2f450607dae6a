"""Measure the CPU time of sampling one token for each row, against the definition by a full sort.

    python -m benchmarks.generate.sampler [--rounds 5]

Both sample the same normally distributed logits in turn. Each figure is the minimum over the rounds; the ratio is the
time of a row among eight, divided by that of the full sort. The tokens of both must be equal.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from benchmarks.generate import full_sort
from service.engine.generation.sampler import RowSampler, Sampling, sample_rows

NUM_ROWS = 8
OPTIONS: dict[str, dict[str, float]] = {
    "temperature 0": {"temperature": 0},
    "temperature 0.8": {},
    "top_k 40": {"top_k": 40},
    "top_k 40, top_p 0.95": {"top_k": 40, "top_p": 0.95},
    "top_p 0.95": {"top_p": 0.95},
    "min_p 0.05": {"min_p": 0.05},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| V | options | full sort, µs a row | 1 row, µs | 8 rows, µs a row | with log probabilities | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for vocabulary, steps in ((100, 300), (50_257, 6)):
        logits_BV = np.random.default_rng(0).normal(0, 3, (NUM_ROWS, vocabulary)).astype(np.float32)
        for name, options in OPTIONS.items():
            sampling = Sampling(**({"temperature": 0.8, "top_k": 0, "top_p": 1, "seed": 1} | options))  # type: ignore[arg-type]
            timed = measure(logits_BV, sampling, rounds, steps)
            figures = " | ".join(f"{figure:.0f}" for figure in timed)
            print(f"| {vocabulary:,} | {name} | {figures} | {timed[2] / timed[0]:.2f} |")


def measure(logits_BV: np.ndarray, sampling: Sampling, rounds: int, steps: int) -> list[float]:
    """Return µs of CPU time a row: full sort, one row, eight rows, and these with log probabilities."""
    rows = [RowSampler(sampling, prompt=()) for _ in logits_BV]
    with_logprobs = [RowSampler(sampling, prompt=(), num_logprobs=0) for _ in logits_BV]

    def sort_rows(step: int) -> list[int]:
        return [full_sort.sample(logits_V, sampling, step) for logits_V in logits_BV]

    def sample_all(step: int) -> list[int]:
        return [sampled.id for sampled in sample_rows(logits_BV, rows, [step] * NUM_ROWS)]

    def sample_one(step: int) -> None:
        sample_rows(logits_BV[:1], rows[:1], [step])

    def sample_with_logprobs(step: int) -> None:
        sample_rows(logits_BV, with_logprobs, [step] * NUM_ROWS)

    assert all(sort_rows(step) == sample_all(step) for step in range(steps))
    timed: list[tuple[Callable[[int], object], int]] = [
        (sort_rows, NUM_ROWS), (sample_one, 1), (sample_all, NUM_ROWS), (sample_with_logprobs, NUM_ROWS)
    ]  # fmt: skip
    spent = [[spent_s(function, steps) / num_rows for function, num_rows in timed] for _ in range(rounds)]
    return (np.min(spent, axis=0) / steps * 1e6).tolist()


def spent_s(function: Callable[[int], object], steps: int) -> float:
    begin = time.process_time()
    for step in range(steps):
        function(step)
    return time.process_time() - begin


if __name__ == "__main__":
    main()
