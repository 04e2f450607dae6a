"""The limit: nothing but session.run over arrays that are in memory, a process a core, the best batch size."""

import time
from typing import Any

from benchmarks.scoring import data
from benchmarks.scoring.rivals.common import BATCHES, arguments, folder_of, on_every_core, session_of, share


def work(number: int, processes: int, barrier: Any) -> None:
    _, _, rows, bundles = arguments()
    mine = share(rows, number, processes)
    session = session_of(folder_of(bundles, "mnist-cnn"))
    held = data.images(min(mine, data.FILE_ROWS), seed=number).reshape(-1, 28, 28)

    def loop(batch: int, count: int) -> float:
        began = time.perf_counter()
        for left in range(count, 0, -len(held)):
            part = held[:left]
            for begin in range(0, len(part), batch):
                session.run(["probabilities"], {"images": part[begin : begin + batch]})
        return time.perf_counter() - began

    best = min(BATCHES, key=lambda batch: min(loop(batch, 4096) for _ in range(3)))
    barrier.wait()
    loop(best, mine)
    barrier.wait()


if __name__ == "__main__":
    on_every_core(work)
