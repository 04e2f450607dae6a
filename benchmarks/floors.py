"""What the recipes reach on the real data sets, against the least that we accept.

    make prove-models DATA=FOLDER   trains what has no run yet on the real sets in FOLDER, then prints this
    python -m benchmarks.floors runs-real

Reads finished runs, trains nothing. Exit status 1 when a run is missing or below its floor.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training.checkpoint import Run, RunError, load_run
from training.fidelity import verdict

FOLDERS = {
    "mnist": "mnist",
    "cifar10": "cifar10/cifar10-jpeg.tar.xz",
    "vowels": "japanese_vowels",
    "news": "ag_news",
    "text": "tinyshakespeare/input.txt",
}


@dataclass(frozen=True, kw_only=True)
class Floor:
    metric: str
    bound: float
    at_most: bool = False

    def holds(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


FLOORS = {
    "mnist-mlp": Floor(metric="test_accuracy", bound=0.975),
    "mnist-cnn": Floor(metric="test_accuracy", bound=0.987),
    "cifar10-lenet5": Floor(metric="test_accuracy", bound=0.60),
    "cifar10-cnn": Floor(metric="test_accuracy", bound=0.70),
    "vowels-rnn": Floor(metric="test_accuracy", bound=0.90),
    "vowels-lstm": Floor(metric="test_accuracy", bound=0.95),
    "vowels-lstm-stateful": Floor(metric="test_accuracy", bound=0.90),
    "news-lstm": Floor(metric="test_accuracy", bound=0.88),
    "news-attention-dot": Floor(metric="test_accuracy", bound=0.88),
    "news-attention-general": Floor(metric="test_accuracy", bound=0.88),
    "text-transformer": Floor(metric="test_nats_per_character", bound=1.75, at_most=True),
}


def judge_samples(gan: Run, judge: Run) -> dict[str, float]:
    """How sure a digit classifier is of the generator's samples, and how often each digit comes."""
    sure, shares = verdict(gan, judge)
    return {"sure": sure, "rarest_digit": min(shares.values()), "commonest_digit": max(shares.values())}


GAN_FLOORS = {
    "sure": Floor(metric="sure", bound=0.80),
    "rarest_digit": Floor(metric="rarest_digit", bound=0.04),
    "commonest_digit": Floor(metric="commonest_digit", bound=0.20, at_most=True),
}


def rows(root: Path) -> list[tuple[str, str, float | None, Floor, float]]:
    """Recipe, metric, value (None without a run), floor, seconds of training."""
    found = []

    def add(name: str, measure: Callable[[Run], dict[str, float]], floors: list[Floor]) -> None:
        try:
            run = load_run(root / name)
        except RunError as error:
            print(error, file=sys.stderr)
            found.extend((name, floor.metric, None, floor, 0.0) for floor in floors)
            return
        values = measure(run)
        found.extend((name, floor.metric, values[floor.metric], floor, run.checkpoint.seconds) for floor in floors)

    for name, floor in FLOORS.items():
        add(name, lambda run: run.checkpoint.metrics, [floor])
    add("mnist-gan", lambda run: judge_samples(run, load_run(root / "mnist-cnn")), list(GAN_FLOORS.values()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of finished runs")
    parser.add_argument("--data-of", metavar="RECIPE", help="print where in a data folder the recipe's set lies")
    args = parser.parse_args()
    if args.data_of:
        print(FOLDERS[args.data_of.split("-")[0]])
        return
    torch.set_num_threads(1)
    failed = False
    print("| recipe | metric | reached | floor | training |\n| --- | --- | --- | --- | --- |")
    for name, metric, value, floor, seconds in rows(args.runs):
        holds = value is not None and floor.holds(value)
        failed |= not holds
        bound = f"{'≤' if floor.at_most else '≥'} {floor.bound:g}"
        reached = "no run" if value is None else f"{value:.4f}{'' if holds else ' **missed**'}"
        print(f"| {name} | {metric} | {reached} | {bound} | {seconds:.0f} s |")
    sys.exit(failed)


if __name__ == "__main__":
    main()
