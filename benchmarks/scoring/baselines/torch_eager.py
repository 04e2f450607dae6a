"""A plain PyTorch script: a Dataset over the same files, a DataLoader, the eager model, a Parquet file as output."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.scoring.baselines.common import parse_arguments, timed
from training.checkpoint import load_run

RUN = Path(os.environ.get("EKIBEN_RUNS", "runs")) / "mnist-cnn"


class Images(IterableDataset):  # type: ignore[type-arg]
    def __init__(self, source: Path, rows: int) -> None:
        self._source, self._rows = source, rows

    def __iter__(self) -> Iterator[Any]:
        left = self._rows
        for path in sorted(self._source.glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(4096):
                for row_id, content in zip(batch["id"].to_pylist(), batch["image"].to_pylist(), strict=True):
                    if not left:
                        return
                    left -= 1
                    yield row_id, torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(28, 28)


def main() -> None:
    source, output, rows, _ = parse_arguments()
    output.mkdir(parents=True)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = load_run(RUN).model.eval()

    def work() -> None:
        ids, labels, probabilities = [], [], []
        with torch.inference_mode():
            for row_ids, images in DataLoader(Images(source, rows), batch_size=256, num_workers=1):
                best = model(images).softmax(-1).max(-1)
                ids.append(row_ids.numpy())
                labels.append(best.indices.numpy())
                probabilities.append(best.values.numpy())
        columns = {"id": ids, "label": labels, "probability": probabilities}
        table = pa.table({name: np.concatenate(parts) for name, parts in columns.items()})
        pq.write_table(table, output / "part.parquet")

    timed(rows, work)


if __name__ == "__main__":
    main()
