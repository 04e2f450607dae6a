"""A pyarrow Table as the input of a job: a file that lives as long as the job runs."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

# Rows of one record batch.
BATCH_ROWS = 8192
# The name of the file in the output, in the column `file`.
NAME = "table.arrow"

Inputs: TypeAlias = str | Path | pa.Table | Sequence[str | Path]


@contextmanager
def input_paths(inputs: Inputs) -> Iterator[list[str]]:
    """Yield the paths of the inputs; a Table is written to a file first, which is deleted at the end."""
    if not isinstance(inputs, pa.Table):
        paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
        yield [os.fspath(path) for path in paths]
        return
    with tempfile.TemporaryDirectory(prefix="ekiben-table-") as folder:
        path = Path(folder, NAME)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, inputs.schema) as writer:
            # The batches do not depend on how the table was put together, so that an equal one resumes the job.
            writer.write_table(inputs.combine_chunks(), max_chunksize=BATCH_ROWS)
        yield [str(path)]
