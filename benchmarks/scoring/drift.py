"""Measures what counting for drift costs a scored row, with random rows: pictures, series, or texts as long as news.

    python -m benchmarks.scoring.drift [--bundles bundles] [--rounds 40] [MODEL ...]

A worker's scorer scores the same chunk of rows again and again in this process, without files, and the counting in it
is timed. CPU times are the smallest of all rounds, because other work on the machine only adds to them.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.scoring.data import texts
from service.bundle import current_version
from service.contract.readers import ImageReader, Reader, SeriesReader
from service.drift.distributions import Counts
from service.engine.sessions.model import Model
from service.scoring.input.rows import Column, Rows
from service.scoring.model import load_bundle
from service.scoring.scorers import SCORERS
from service.scoring.scorers.scorer import Measured, Scorer

MODELS = ("mnist-mlp", "mnist-cnn", "cifar10-cnn", "vowels-lstm", "news-lstm")
CHUNK_ROWS = 8192


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring.drift", description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    print("| model | statistics | µs a row without counting | of counting | cost |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in args.models:
        print(_measure(args.bundles / name, args.rounds), flush=True)


def _measure(folder: Path, rounds: int) -> str:
    model = load_bundle(folder / current_version(folder), "cpu")
    distributions = model.distributions
    if distributions is None:
        raise SystemExit(f"{folder} has no distributions; export the model again")
    scorer_type = SCORERS[model.manifest.reader.kind]
    field, column = _column(model.manifest.reader)
    rows = Rows(numbers=range(CHUNK_ROWS), columns={field: column})
    timed, scorer = _TimedCounts(model), scorer_type(model, {field: field}, {})
    scorer._count_inputs = timed.count_inputs  # type: ignore[method-assign]
    whole_s = counting_s = float("inf")
    for _ in range(rounds):
        timed.seconds, started = 0.0, time.process_time()
        scorer.score(rows)
        whole_s = min(whole_s, time.process_time() - started - timed.seconds)
        counting_s = min(counting_s, timed.seconds)
    whole_us, counting_us = whole_s / CHUNK_ROWS * 1e6, counting_s / CHUNK_ROWS * 1e6
    number, cost = len(distributions.inputs), counting_us / whole_us
    return f"| {folder.name} | {number} | {whole_us:.2f} | {counting_us:.3f} | {cost:.1%} |"


class _TimedCounts(Scorer):
    """Counts as every scorer, and adds up the CPU time of it."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, {}, {})
        self.seconds = 0.0

    def count_inputs(self, measured: Measured | None) -> Mapping[str, Counts]:
        started = time.process_time()
        counts = self._count_inputs(measured)
        self.seconds += time.process_time() - started
        return counts


def _column(reader: Reader) -> tuple[str, Column]:
    """The field that the reader takes, and random values of it for each row."""
    rng = np.random.default_rng(0)
    if isinstance(reader, ImageReader):
        return "image", rng.integers(0, 256, (CHUNK_ROWS, *reader.fixed_shape), dtype=np.uint8)
    if isinstance(reader, SeriesReader):
        steps = rng.integers(7, 30, CHUNK_ROWS)
        return "sequence", [rng.normal(size=(count, reader.channels)).astype(np.float32) for count in steps]
    return "text", texts(CHUNK_ROWS)


if __name__ == "__main__":
    main()
