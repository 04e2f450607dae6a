"""Shared by the baselines: the command line, a bundle's graph, a session as in the service, and a process per core."""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnxruntime as ort

# A raw loop takes the fastest of these batch sizes.
BATCHES = (16, 24, 32, 64, 128, 256)


def parse_arguments() -> tuple[Path, Path, int, Path]:
    """The input folder, the output folder, the number of rows and the folder of bundles."""
    source, output, rows, bundles = sys.argv[1:]
    return Path(source), Path(output), int(rows), Path(bundles)


def bundle_folder(bundles: Path, name: str) -> Path:
    return bundles / name / (bundles / name / "current").read_text().strip()


def open_session(folder: Path, *, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def rows_of_process(rows: int, number: int, processes: int) -> int:
    return rows // processes + (rows % processes if number == 0 else 0)


def run_on_every_core(work: Callable[[int, int, Any], None]) -> None:
    """Run work(number, processes, barrier) in one process per core, timed between its two waits at the barrier."""
    count = len(os.sched_getaffinity(0))
    context = get_context("spawn")
    barrier = context.Barrier(count + 1)
    processes = [context.Process(target=work, args=(number, count, barrier)) for number in range(count)]
    for process in processes:
        process.start()
    barrier.wait()
    timed(parse_arguments()[2], barrier.wait)
    for process in processes:
        process.join()


def timed(rows: int, work: Callable[[], Any]) -> None:
    """Run the work and print its number of rows and seconds."""
    started = time.perf_counter()
    work()
    print(f"RATE {rows} {time.perf_counter() - started:.6f}", flush=True)
