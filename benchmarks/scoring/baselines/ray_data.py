"""Ray Data: read_parquet, map_batches with the same session in one actor per core, write_parquet."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from benchmarks.scoring.baselines.common import bundle_folder, open_session, parse_arguments, timed


class Score:
    def __init__(self, folder: Path) -> None:
        self._session = open_session(folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        column = batch["image"].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        flat = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * 784 : (column.offset + len(column)) * 784]
        images = flat.reshape(-1, 28, 28)
        parts = [
            self._session.run(["probabilities"], {"images": images[i : i + 32]})[0] for i in range(0, len(images), 32)
        ]
        probabilities = np.concatenate(parts)
        return pa.table(
            {
                "id": batch["id"],
                "label": probabilities.argmax(axis=1).astype(str),
                "probability": probabilities.max(axis=1),
            }
        )


def main() -> None:
    source, output, rows, bundles = parse_arguments()
    cores = len(os.sched_getaffinity(0))
    environment = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    ray.init(num_cpus=cores + 1, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment})
    ray.data.DataContext.get_current().enable_progress_bars = False

    def work() -> None:
        dataset = ray.data.read_parquet(str(source)).limit(rows)
        dataset = dataset.map_batches(
            Score,
            fn_constructor_args=(bundle_folder(bundles, "mnist-cnn"),),
            batch_size=4096,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=cores),
        )
        dataset.write_parquet(str(output))

    timed(rows, work)
    ray.shutdown()


if __name__ == "__main__":
    main()
