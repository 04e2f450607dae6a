"""The upper limit for texts in memory: tokenise, pad, session.run, one process per core, at the fastest batch size."""

import time
from typing import Any

import numpy as np
from tokenizers import Tokenizer

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
    folder = bundle_folder(bundles, "news-lstm")
    session, tokenizer = open_session(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    inputs = data.texts(rows_of_process(rows, number, processes), seed=number)

    def loop(batch: int, texts: list[str]) -> float:
        started = time.perf_counter()
        for begin in range(0, len(texts), batch):
            batch_ids = [encoding.ids for encoding in tokenizer.encode_batch(texts[begin : begin + batch])]
            lengths = np.array([len(ids) for ids in batch_ids], np.int64)
            padded = np.zeros((len(batch_ids), lengths.max()), np.int64)
            for row, ids in zip(padded, batch_ids, strict=True):
                row[: len(ids)] = ids
            session.run(["probabilities"], {"ids": padded, "lengths": lengths})
        return time.perf_counter() - started

    best = min(BATCHES, key=lambda batch: min(loop(batch, inputs[:512]) for _ in range(3)))
    barrier.wait()
    loop(best, inputs)
    barrier.wait()


if __name__ == "__main__":
    run_on_every_core(work)
