"""Joins predictions to their file, row, id and the input columns that the job copies.

An input column named like a prediction becomes `input_NAME`. JSON stays JSON, CSV stays text, Arrow keeps its types.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Rows
from service.scoring.job import Job
from service.scoring.output.sinks import JSON_TEXT
from service.scoring.scorers.scorer import ScoredRows


def join_predictions(job: Job, file: InputFile, rows: Rows, scored: ScoredRows) -> pa.Table:
    """One row of output for each scored row, in order."""
    indexes = np.asarray(scored.indexes, np.int64)
    numbers = np.asarray(rows.numbers, np.int64)[indexes]
    columns: dict[str, Any] = {"file": pa.repeat(file.name, len(indexes)), "row": pa.array(numbers)}
    fields = [pa.field("file", pa.string()), pa.field("row", pa.int64())]
    for name in copied_columns(job, rows, file):
        field, values = _copied_column(name, rows, file, indexes)
        is_taken = name in {"file", "row"} or name in scored.columns
        fields.append(field.with_name(f"input_{name}" if is_taken else name))
        columns[fields[-1].name] = values
    for name, values in scored.columns.items():
        fields.append(pa.field(name, values.type))
        columns[name] = values
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def copied_columns(job: Job, rows: Rows, file: InputFile) -> list[str]:
    """The names of the id, then of the columns to copy, in the order of the input; partitions come last."""
    model_inputs = set(job.columns.values())
    first = [job.id_column] if job.id_column else []
    if job.keep == ("*",):
        names = [*(name for name in rows.columns if name not in model_inputs), *file.partitions]
    else:
        names = [name for name in [*rows.columns, *file.partitions] if name in job.keep]
    return list(dict.fromkeys([*first, *names]))


def row_ids(job: Job, rows: Rows, indexes: Sequence[int]) -> list[Any]:
    """The ids of some rows, as Python values; None for each if the job has no id column."""
    if job.id_column is None:
        return [None] * len(indexes)
    column = rows.columns[job.id_column]
    return [column[i].as_py() if isinstance(column, pa.Array) else column[i] for i in indexes]


def _copied_column(name: str, rows: Rows, file: InputFile, indexes: npt.NDArray[np.int64]) -> tuple[pa.Field, pa.Array]:
    metadata = None
    column = rows.columns.get(name)
    if column is None:
        values = pa.repeat(file.partitions[name], len(indexes))
    elif isinstance(column, pa.Array):
        values = column if len(indexes) == len(rows.numbers) else column.take(pa.array(indexes))
    elif isinstance(column, np.ndarray):
        values = _to_lists(column[indexes])
    elif file.format in {"jsonl", "openai"}:
        texts = [None if column[i] is None else orjson.dumps(column[i]).decode() for i in indexes.tolist()]
        values, metadata = pa.array(texts, pa.string()), JSON_TEXT
    else:
        cells = [column[i] for i in indexes.tolist()]
        is_binary = name == "image" or any(isinstance(cell, bytes) for cell in cells)
        values = pa.array(cells, pa.binary() if is_binary else pa.string())
    return pa.field(name, values.type, metadata=metadata), values


def _to_lists(array: npt.NDArray[Any]) -> pa.Array:
    """An array [rows, ...] as a column of nested lists."""
    flat = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat
