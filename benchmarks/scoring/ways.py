"""The ways that are compared, each a command of its own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ENDLESS = 10**12
Reads = Literal["images", "texts"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """`command(input folder, output folder, rows, bundles)`; slow ways take fewer rows."""

    title: str
    reads: Reads
    command: Callable[[Path, Path, int, Path], list[str]]
    most_rows: int = ENDLESS
    limit_of: Reads | None = None


def _rival(name: str) -> Callable[[Path, Path, int, Path], list[str]]:
    def command(source: Path, output: Path, rows: int, bundles: Path) -> list[str]:
        return [
            sys.executable,
            "-m",
            f"benchmarks.scoring.rivals.{name}",
            str(source),
            str(output),
            str(rows),
            str(bundles),
        ]

    return command


def _scoring(model: str, *more: str) -> Callable[[Path, Path, int, Path], list[str]]:
    def command(source: Path, output: Path, rows: int, bundles: Path) -> list[str]:
        words = [sys.executable, "-m", "benchmarks.scoring.timed", "--model", model, "--bundles", str(bundles)]
        return [*words, "--input", str(source), "--output", str(output), "--limit", str(rows), "--id", "id", *more]

    return command


WAYS = {
    "raw images": Way(
        title="raw onnxruntime loop, images in memory", reads="images", command=_rival("raw_images"), limit_of="images"
    ),
    "scoring images": Way(title="**ekiben scoring**, mnist-cnn", reads="images", command=_scoring("mnist-cnn")),
    "pandas": Way(title="100-line pandas script", reads="images", command=_rival("pandas_script"), most_rows=300_000),
    "ray data": Way(
        title="Ray Data map_batches, same session", reads="images", command=_rival("ray_data"), most_rows=300_000
    ),
    "torch": Way(title="PyTorch DataLoader, eager", reads="images", command=_rival("torch_eager"), most_rows=200_000),
    "http": Way(title="loop over the HTTP API", reads="images", command=_rival("http_loop"), most_rows=40_000),
    "raw texts": Way(
        title="raw onnxruntime loop, texts in memory, tokenised",
        reads="texts",
        command=_rival("raw_texts"),
        limit_of="texts",
    ),
    "scoring texts": Way(title="**ekiben scoring**, news-lstm from CSV", reads="texts", command=_scoring("news-lstm")),
}
