"""Compares one pass of two models with two passes of one model each over the same input.

    python -m benchmarks.scoring.passes [--images 20000] [--texts 4000] [--rounds 3] [--bundles bundles]

The inputs are PNG files of MNIST's size in a folder and in a tar, the same pixels as Parquet bytes, and texts as CSV.
One process plans, scores and commits without workers, with models that are loaded before, so that no start of a program
counts. In each round the pass and the two jobs run in turn, and the order changes; the table gives medians.
"""

import argparse
import functools
import io
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from PIL import Image

from benchmarks.scoring import data
from service.scoring import execution, shard
from service.scoring.engines.engine import EngineContext, EngineResult, try_score
from service.scoring.job import Job
from service.scoring.plan import SharedShard
from service.scoring.run import score

SHAPE = (28, 28)
DIGITS, NEWS = ("mnist-cnn", "mnist-mlp"), ("news-attention-dot", "news-attention-general")


@dataclass(frozen=True, kw_only=True)
class Cost:
    cpu_s: float
    elapsed_s: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(cpu_s=self.cpu_s + other.cpu_s, elapsed_s=self.elapsed_s + other.elapsed_s)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring.passes", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    args = parser.parse_args()
    pa.set_cpu_count(1)
    shard.load_bundle = functools.cache(shard.load_bundle)
    execution.ENGINES["process"] = _score_here
    with tempfile.TemporaryDirectory(prefix="ekiben-passes-") as name:
        folder = Path(name)
        write_digits(folder, args.images)
        data.write_images(folder / "pixels", args.images)
        data.write_texts(folder / "texts", args.texts)
        print("| input | models | rows | CPU s: two passes | one pass | ratio | elapsed |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        for title, models, source, rows in (
            ("PNG files", DIGITS, "digits", args.images),
            ("PNG files in a tar", DIGITS, "digits.tar", args.images),
            ("pixels in Parquet", DIGITS, "pixels", args.images),
            ("texts in CSV", NEWS, "texts", args.texts),
        ):
            two, one = _compare(models, folder / source, folder / "out", args.rounds, args.bundles)
            print(
                f"| {title} | {', '.join(models)} | {rows:,} | {two.cpu_s:.2f} | {one.cpu_s:.2f} "
                f"| {one.cpu_s / two.cpu_s:.2f} | {one.elapsed_s / two.elapsed_s:.2f} |",
                flush=True,
            )


def write_digits(folder: Path, rows: int) -> None:
    """Write random images, four fifths black, as PNG files into a folder and a tar."""
    (folder / "digits").mkdir()
    with tarfile.open(folder / "digits.tar", "w") as archive:
        for i, pixels in enumerate(data.images(rows)):
            buffer = io.BytesIO()
            Image.fromarray(pixels.reshape(SHAPE)).save(buffer, "PNG")
            (folder / "digits" / f"{i:07}.png").write_bytes(buffer.getvalue())
            member = tarfile.TarInfo(f"{i:07}.png")
            member.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(member, buffer)


def _compare(models: tuple[str, str], source: Path, folder: Path, rounds: int, bundles: Path) -> tuple[Cost, Cost]:
    """The cost of two passes, and of one."""
    costs: dict[str, list[Cost]] = {"two": [], "one": []}
    for number in range(rounds + 1):
        methods = ("two", "one") if number % 2 else ("one", "two")
        for method in methods:
            place = folder / f"{source.name}-{number}-{method}"
            groups = [models] if method == "one" else [(model,) for model in models]
            parts = [_score(group, source, place, bundles) for group in groups]
            # The first round loads the models.
            if number:
                costs[method].append(functools.reduce(Cost.__add__, parts))
        print(f"{source.name}, round {number}: {costs}", file=sys.stderr, flush=True)
    two, one = (
        Cost(
            cpu_s=statistics.median(cost.cpu_s for cost in costs[method]),
            elapsed_s=statistics.median(cost.elapsed_s for cost in costs[method]),
        )
        for method in ("two", "one")
    )
    return two, one


def _score(models: tuple[str, ...], source: Path, output: Path, bundles: Path) -> Cost:
    started, cpu_started = time.perf_counter(), time.process_time()
    score(list(models), source, output, bundles=bundles, engine="process", device="cpu")  # type: ignore[call-overload]  # an engine of this benchmark
    return Cost(cpu_s=time.process_time() - cpu_started, elapsed_s=time.perf_counter() - started)


def _score_here(
    jobs: Sequence[Job], shards: Iterator[SharedShard], *, workers: int | None, context: EngineContext
) -> EngineResult:
    """An engine without worker processes."""
    context.progress.workers = workers or 1
    result = EngineResult()
    with closing(shard.Context(jobs)) as worker:
        for planned in shards:
            outcome = try_score(worker, planned, context.progress.add_done)
            result.computed.update(outcome.computed)
            result.failures += [outcome.detail] if outcome.detail else []
    return result


if __name__ == "__main__":
    main()
