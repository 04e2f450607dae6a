"""Compare the metrics of the recipes, trained on the real data sets, with the thresholds that they must meet.

    make prove-models DATA=FOLDER               train the recipes that have no run, on the sets in FOLDER, and compare
    python -m benchmarks.thresholds runs-real

Reads finished runs and trains nothing. The exit status is 1 when a run is missing or misses a threshold.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training.checkpoint import Run, RunError, load_run
from training.fidelity import classify_samples

DATA_FOLDERS = {
    "mnist": "mnist",
    "cifar10": "cifar10/cifar10-jpeg.tar.xz",
    "vowels": "japanese_vowels",
    "news": "ag_news",
    "text": "tinyshakespeare/input.txt",
}


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A lower bound of a metric, or an upper bound."""

    metric: str
    bound: float
    is_upper: bool = False

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.is_upper else value >= self.bound


THRESHOLDS = {
    "mnist-mlp": Threshold(metric="test_accuracy", bound=0.975),
    "mnist-cnn": Threshold(metric="test_accuracy", bound=0.987),
    "cifar10-lenet5": Threshold(metric="test_accuracy", bound=0.60),
    "cifar10-cnn": Threshold(metric="test_accuracy", bound=0.70),
    "vowels-rnn": Threshold(metric="test_accuracy", bound=0.90),
    "vowels-lstm": Threshold(metric="test_accuracy", bound=0.95),
    "vowels-lstm-stateful": Threshold(metric="test_accuracy", bound=0.90),
    "news-lstm": Threshold(metric="test_accuracy", bound=0.88),
    "news-attention-dot": Threshold(metric="test_accuracy", bound=0.88),
    "news-attention-general": Threshold(metric="test_accuracy", bound=0.88),
    "text-transformer": Threshold(metric="test_nats_per_character", bound=1.75, is_upper=True),
}
GAN_THRESHOLDS = [
    Threshold(metric="test_precision", bound=0.85),
    Threshold(metric="test_recall", bound=0.2),
    Threshold(metric="test_density", bound=0.8),
    Threshold(metric="test_coverage", bound=0.3),
    Threshold(metric="confident_share", bound=0.80),
    Threshold(metric="rarest_digit", bound=0.04),
    Threshold(metric="commonest_digit", bound=0.20, is_upper=True),
]
Row = tuple[str, str, str, float | None, Threshold, float]


def gan_metrics(gan: Run, classifier: Run) -> dict[str, float]:
    """The metrics of training, the share of samples that the classifier labels with confidence, and those of digits."""
    confident_share, digit_shares = classify_samples(gan, classifier)
    digits = digit_shares.values()
    shares = {"confident_share": confident_share, "rarest_digit": min(digits), "commonest_digit": max(digits)}
    return {**gan.checkpoint.metrics, **shares}


def rows(root: Path) -> list[Row]:
    """Recipe, data set, metric, value (None without a run), threshold, seconds of training."""
    result: list[Row] = []

    def add(name: str, measure: Callable[[Run], dict[str, float]], thresholds: list[Threshold]) -> None:
        try:
            run = load_run(root / name)
        except RunError as error:
            print(error, file=sys.stderr)
            result.extend((name, "", threshold.metric, None, threshold, 0.0) for threshold in thresholds)
            return
        values, dataset, seconds = measure(run), run.checkpoint.data["name"], run.checkpoint.seconds
        result.extend((name, dataset, each.metric, values[each.metric], each, seconds) for each in thresholds)

    for name, threshold in THRESHOLDS.items():
        add(name, lambda run: run.checkpoint.metrics, [threshold])
    add("mnist-gan", lambda run: gan_metrics(run, load_run(root / "mnist-cnn")), GAN_THRESHOLDS)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of finished runs")
    parser.add_argument("--data-of", metavar="RECIPE", help="print the path of the recipe's set inside a data folder")
    args = parser.parse_args()
    if args.data_of:
        print(DATA_FOLDERS[args.data_of.split("-")[0]])
        return
    torch.set_num_threads(1)
    failed = False
    print("| recipe | data | metric | reached | threshold | training |\n| --- | --- | --- | --- | --- | --- |")
    for name, dataset, metric, value, threshold, seconds in rows(args.runs):
        is_met = value is not None and threshold.is_met(value)
        failed |= not is_met
        bound = f"{'≤' if threshold.is_upper else '≥'} {threshold.bound:g}"
        reached = "no run" if value is None else f"{value:.4f}{'' if is_met else ' **missed**'}"
        print(f"| {name} | {dataset} | {metric} | {reached} | {bound} | {seconds:.0f} s |")
    sys.exit(failed)


if __name__ == "__main__":
    main()
