"""What every rival is given: the command line, a bundle's graph, a session as the service makes it, and cores."""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnxruntime as ort

BATCHES = (16, 24, 32, 64, 128, 256)  # a raw loop chooses the best


def arguments() -> tuple[Path, Path, int, Path]:
    """Input folder, output folder, rows, bundles."""
    source, output, rows, bundles = sys.argv[1:]
    return Path(source), Path(output), int(rows), Path(bundles)


def folder_of(bundles: Path, name: str) -> Path:
    return bundles / name / (bundles / name / "current").read_text().strip()


def session_of(folder: Path, *, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def share(rows: int, number: int, processes: int) -> int:
    return rows // processes + (rows % processes if number == 0 else 0)


def on_every_core(work: Callable[[int, int, Any], None]) -> None:
    """work(number, processes, barrier) in a process a core, timed between its two waits at the barrier."""
    count = len(os.sched_getaffinity(0))
    context = get_context("spawn")
    barrier = context.Barrier(count + 1)
    processes = [context.Process(target=work, args=(number, count, barrier)) for number in range(count)]
    for process in processes:
        process.start()
    barrier.wait()
    told(arguments()[2], barrier.wait)
    for process in processes:
        process.join()


def told(rows: int, work: Callable[[], Any]) -> None:
    """Do it and say how long it took."""
    began = time.perf_counter()
    work()
    print(f"RATE {rows} {time.perf_counter() - began:.6f}", flush=True)
