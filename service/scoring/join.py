"""Predictions joined to where they come from: file, row, id and, by option, the input's own columns.

An input column whose name is taken by a prediction goes by `input_NAME`. Values of JSON input keep their JSON form;
fields of CSV stay texts; Arrow columns stay what they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from service.scoring.files import InputFile
from service.scoring.job import Job
from service.scoring.rows import Column, Rows
from service.scoring.scorers.scored import Scored
from service.scoring.sinks import JSON_TEXT


def joined(job: Job, file: InputFile, rows: Rows, scored: Scored) -> pa.Table:
    """One row for each scored one, in order."""
    kept = np.asarray(scored.kept, np.int64)
    numbers = _as_array(rows.numbers)[kept]
    columns: dict[str, Any] = {"file": pa.repeat(file.name, len(kept)), "row": pa.array(numbers)}
    fields = [pa.field("file", pa.string()), pa.field("row", pa.int64())]
    for name in kept_columns(job, rows, file):
        field, values = _kept(name, rows, file, kept, whole=len(kept) == len(rows.numbers))
        taken = name in {"file", "row"} or name in scored.columns
        fields.append(field.with_name(f"input_{name}" if taken else name))
        columns[fields[-1].name] = values
    for name, values in scored.columns.items():
        fields.append(pa.field(name, values.type))
        columns[name] = values
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def kept_columns(job: Job, rows: Rows, file: InputFile) -> list[str]:
    """The id, then what is to be kept, in the input's order; partitions last."""
    partitions = [name for name, _ in file.partitions]
    fed = set(job.columns.values())
    first = [job.id_column] if job.id_column else []
    if job.keep == ("*",):
        names = [name for name in rows.columns if name not in fed] + partitions
    else:
        names = [name for name in [*rows.columns, *partitions] if name in job.keep]
    return list(dict.fromkeys([*first, *names]))


def ids(job: Job, rows: Rows, indexes: Sequence[int]) -> list[Any]:
    """The ids of some rows, as Python values."""
    if job.id_column is None:
        return [None] * len(indexes)
    column = rows.columns[job.id_column]
    return [column[i].as_py() if isinstance(column, pa.Array) else column[i] for i in indexes]


def _as_array(numbers: Sequence[int]) -> npt.NDArray[np.int64]:
    if isinstance(numbers, range):
        return np.arange(numbers.start, numbers.stop, dtype=np.int64)
    return np.asarray(numbers, np.int64)


def _kept(
    name: str, rows: Rows, file: InputFile, kept: npt.NDArray[np.int64], *, whole: bool
) -> tuple[pa.Field, pa.Array]:
    if name not in rows.columns:
        value = dict(file.partitions)[name]
        return pa.field(name, pa.string()), pa.repeat(value, len(kept))
    column = rows.columns[name]
    if isinstance(column, pa.Array):
        return pa.field(name, column.type), column if whole else column.take(pa.array(kept))
    if isinstance(column, np.ndarray):
        array = _rows_of_numbers(column[kept])
        return pa.field(name, array.type), array
    return _listed(name, column, kept, texts=file.format not in {"jsonl", "openai"})


def _listed(name: str, column: Column, kept: npt.NDArray[np.int64], *, texts: bool) -> tuple[pa.Field, pa.Array]:
    values = [column[i] for i in kept.tolist()]
    if texts:
        kind = pa.binary() if any(isinstance(value, bytes) for value in values) or name == "image" else pa.string()
        return pa.field(name, kind), pa.array(values, kind)
    encoded = [None if value is None else orjson.dumps(value).decode() for value in values]
    return pa.field(name, pa.string(), metadata=JSON_TEXT), pa.array(encoded, pa.string())


def _rows_of_numbers(array: npt.NDArray[Any]) -> pa.Array:
    flat = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat
