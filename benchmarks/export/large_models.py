"""Export multilayer perceptrons of 563 MB and 2.5 GB, and measure the memory of two workers that serve each of them.

`python -m benchmarks.export.large_models` makes the weights from a seed, exports them with `python -m export module`,
and prints a row each: time and peak memory of the export (the largest resident set of its process, with what it has
mapped), and for two workers of `python -m service`, with shared and with prepacked weights, the sum of their
proportional set sizes and the CPU time of a request of one and of eight pictures. It needs 6 GB of disk; `--width` and
`--layers` measure a single model of another size.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import save_file

from benchmarks.engine.server import HOST, ROOT, cpu_s, serve

NAME, SIDE, LABELS, NUM_EXAMPLES = "large-mlp", 28, 10, 40
NUM_WORKERS, NUM_REQUESTS, BATCHES = 2, 24, (1, 8)
# Each process hashes the weights and replays the golden cases on them.
LOAD_TIMEOUT_S = 600
# Width and number of hidden layers.
SIZES = ((8192, 3), (8320, 10))
MODULE = """from torch import nn


def make(width, layers):
    sizes = [784, *[width] * layers, 10]
    parts = [part for pair in zip(sizes, sizes[1:]) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *parts[:-1])
"""
SPEC = """name = "large-mlp"
reader = {{ kind = "image", height = 28, width = 28, mode = "L", mean = 0.5, std = 0.3 }}
head = {{ kind = "labels", labels = 10 }}
limits = {{ max_items = 16 }}
factory = {{ width = {width}, layers = {layers} }}
"""


@dataclass(frozen=True, kw_only=True)
class Served:
    """Proportional set size of the workers together, and CPU milliseconds of a request by its number of pictures."""

    pss_bytes: int
    cpu_ms: dict[int, float]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export.large_models")
    parser.add_argument("--width", type=int)
    parser.add_argument("--layers", type=int, default=3, help="hidden layers (default: 3)")
    parser.add_argument("--folder", type=Path, help="where files are made (default: a temporary folder)")
    options = parser.parse_args(argv)
    sizes = SIZES if options.width is None else ((options.width, options.layers),)
    print("| weights | export, s | peak, MB | PSS shared, MB | PSS prepacked, MB | CPU ms 1, 8 shared | prepacked |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for width, layers in sizes:
        with _folder(options.folder) as folder:
            print(_row(folder, width, layers), flush=True)


@contextmanager
def _folder(parent: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="large-mlp-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _row(folder: Path, width: int, layers: int) -> str:
    # A fresh process makes and exports each model, so that its memory is its own.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        num_bytes = pool.submit(make_model, folder, width, layers).result()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, peak_bytes = pool.submit(export_model, folder).result()
    (folder / "weights.safetensors").unlink()
    shared, prepacked = (measure_served(folder / "bundles", prepack=prepack) for prepack in (False, True))
    times = (", ".join(f"{ms:.0f}" for ms in one.cpu_ms.values()) for one in (shared, prepacked))
    numbers = (num_bytes / 1e6, seconds, peak_bytes / 1e6, shared.pss_bytes / 1e6, prepacked.pss_bytes / 1e6)
    megabytes, elapsed, *others = (f"{number:,.0f}" for number in numbers)
    return f"| {' | '.join((f'{megabytes} MB', elapsed, *others, *times))} |"


def make_model(folder: Path, width: int, layers: int) -> int:
    """Write module, weights, examples and spec; return the bytes of the weights."""
    rng = np.random.default_rng(0)
    sizes = [SIDE * SIDE, *[width] * layers, LABELS]
    weights: dict[str, Any] = {}
    for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        # He initialisation keeps the signal of a picture through all layers.
        scale = np.float32((2 / fan_in) ** 0.5)
        weights[f"{1 + 2 * number}.weight"] = rng.standard_normal((fan_out, fan_in), np.float32) * scale
        weights[f"{1 + 2 * number}.bias"] = rng.standard_normal(fan_out, np.float32) * np.float32(0.1)
    save_file(weights, folder / "weights.safetensors")
    images = rng.integers(0, 256, (NUM_EXAMPLES, SIDE, SIDE), dtype=np.uint8)
    save_file({"images": images}, folder / "examples.safetensors")
    (folder / "large_mlp.py").write_text(MODULE)
    (folder / "spec.toml").write_text(SPEC.format(width=width, layers=layers))
    return sum(array.nbytes for array in weights.values())


def export_model(folder: Path) -> tuple[float, int]:
    """Export the model of the folder; return the seconds and the largest resident set of a process of the export."""
    files = ["--weights", "weights.safetensors", "--examples", "examples.safetensors", "--spec", "spec.toml"]
    command = [sys.executable, "-m", "export", "module", "large_mlp:make", *files]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=sys.stderr)
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10


def measure_served(bundles: Path, *, prepack: bool) -> Served:
    """Start two workers on the bundle, run both, and measure them."""
    os.environ |= {"EKIBEN_PREPACK": str(prepack).lower(), "EKIBEN_HANG_S": str(LOAD_TIMEOUT_S)}
    cores = sorted(os.sched_getaffinity(0))
    with serve(bundles, NUM_WORKERS, cores, timeout_s=LOAD_TIMEOUT_S) as (server, port):
        workers = server.children()
        cpu_ms = {batch: _request_ms(port, workers, batch) for batch in BATCHES}
        return Served(pss_bytes=sum(map(_pss_bytes, workers)), cpu_ms=cpu_ms)


def _request_ms(port: int, workers: Sequence[psutil.Process], batch: int) -> float:
    """CPU milliseconds of the workers for a request of this many pictures."""
    images = np.random.default_rng(batch).integers(0, 256, (batch, SIDE, SIDE)).tolist()
    body = json.dumps({"model": NAME, "images": images})
    with closing(HTTPConnection(HOST, port)) as connection:
        _post(connection, body)
        began = cpu_s(workers)
        for _ in range(NUM_REQUESTS):
            _post(connection, body)
        return (cpu_s(workers) - began) / NUM_REQUESTS * 1e3


def _post(connection: HTTPConnection, body: str) -> None:
    connection.request("POST", "/classify", body, {"content-type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != HTTPStatus.OK:
        sys.exit(f"status {response.status}: {content.decode()[:300]}")


def _pss_bytes(process: psutil.Process) -> int:
    content = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB$", content, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


if __name__ == "__main__":
    main()
