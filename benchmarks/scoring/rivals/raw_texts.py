"""The limit for texts: tokenise, pad, session.run over texts in memory, a process a core, the best batch size."""

import time
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.scoring import data
from benchmarks.scoring.rivals.common import BATCHES, arguments, folder_of, on_every_core, session_of, share


def work(number: int, processes: int, barrier: Any) -> None:
    _, _, rows, bundles = arguments()
    folder = folder_of(bundles, "news-lstm")
    session, tokenizer = session_of(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    held = data.texts(share(rows, number, processes), seed=number)

    def loop(batch: int, texts: list[str]) -> float:
        began = time.perf_counter()
        for begin in range(0, len(texts), batch):
            found = [encoding.ids for encoding in tokenizer.encode_batch(texts[begin : begin + batch])]
            lengths = np.array([len(ids) for ids in found], np.int64)
            padded = np.zeros((len(found), lengths.max()), np.int64)
            for row, ids in zip(padded, found, strict=True):
                row[: len(ids)] = ids
            session.run(["probabilities"], {"ids": padded, "lengths": lengths})
        return time.perf_counter() - began

    best = min(BATCHES, key=lambda batch: min(loop(batch, held[:512]) for _ in range(3)))
    barrier.wait()
    loop(best, held)
    barrier.wait()


if __name__ == "__main__":
    on_every_core(work)
