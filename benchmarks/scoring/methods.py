"""The methods that are compared, each a command of its own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

UNLIMITED = 10**12
Command = Callable[[Path, Path, int, Path], list[str]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """`command(input folder, output folder, rows, bundles)`.

    `max_rows` bounds the rows of a slow method. `is_limit`: the data is in memory, so no method can be faster.
    """

    title: str
    reads: Literal["images", "texts"]
    command: Command
    max_rows: int = UNLIMITED
    is_limit: bool = False


def _baseline(name: str) -> Command:
    def command(source: Path, output: Path, rows: int, bundles: Path) -> list[str]:
        module = f"benchmarks.scoring.baselines.{name}"
        return [sys.executable, "-m", module, str(source), str(output), str(rows), str(bundles)]

    return command


def _scoring(model: str) -> Command:
    def command(source: Path, output: Path, rows: int, bundles: Path) -> list[str]:
        words = [sys.executable, "-m", "benchmarks.scoring.timed_job", "--model", model, "--bundles", str(bundles)]
        return [*words, "--input", str(source), "--output", str(output), "--limit", str(rows), "--id", "id"]

    return command


METHODS = {
    "raw images": Method(
        title="raw onnxruntime loop, images in memory",
        reads="images",
        command=_baseline("raw_images"),
        is_limit=True,
    ),
    "scoring images": Method(title="**ekiben scoring**, mnist-cnn", reads="images", command=_scoring("mnist-cnn")),
    "pandas": Method(
        title="100-line pandas script", reads="images", command=_baseline("pandas_script"), max_rows=300_000
    ),
    "ray data": Method(
        title="Ray Data map_batches, same session", reads="images", command=_baseline("ray_data"), max_rows=300_000
    ),
    "torch": Method(
        title="PyTorch DataLoader, eager", reads="images", command=_baseline("torch_eager"), max_rows=200_000
    ),
    "http": Method(title="loop over the HTTP API", reads="images", command=_baseline("http_loop"), max_rows=40_000),
    "raw texts": Method(
        title="raw onnxruntime loop, texts in memory, tokenised",
        reads="texts",
        command=_baseline("raw_texts"),
        is_limit=True,
    ),
    "scoring texts": Method(
        title="**ekiben scoring**, news-lstm from CSV", reads="texts", command=_scoring("news-lstm")
    ),
}
