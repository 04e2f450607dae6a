"""The upper limit: session.run over arrays in memory, one process per core, at the fastest batch size."""

import time
from typing import Any

from benchmarks.scoring import data
from benchmarks.scoring.baselines.common import (
    BATCHES,
    bundle_folder,
    open_session,
    parse_arguments,
    rows_of_process,
    run_on_every_core,
)


def work(number: int, processes: int, barrier: Any) -> None:
    _, _, rows, bundles = parse_arguments()
    rows_here = rows_of_process(rows, number, processes)
    session = open_session(bundle_folder(bundles, "mnist-cnn"))
    inputs = data.images(min(rows_here, data.FILE_ROWS), seed=number).reshape(-1, 28, 28)

    def loop(batch: int, count: int) -> float:
        started = time.perf_counter()
        for left in range(count, 0, -len(inputs)):
            part = inputs[:left]
            for begin in range(0, len(part), batch):
                session.run(["probabilities"], {"images": part[begin : begin + batch]})
        return time.perf_counter() - started

    best = min(BATCHES, key=lambda batch: min(loop(batch, 4096) for _ in range(3)))
    barrier.wait()
    loop(best, rows_here)
    barrier.wait()


if __name__ == "__main__":
    run_on_every_core(work)
