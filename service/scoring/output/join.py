"""Joins predictions to their file, row, id and the input columns that the job copies.

An input column named like a prediction becomes `input_NAME`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Rows
from service.scoring.job import Job
from service.scoring.output.copied import as_json
from service.scoring.scorers.scorer import ScoredRows
from service.scoring.sources.text.lines import JSON_TEXT


def join_predictions(job: Job, file: InputFile, rows: Rows, scored: ScoredRows) -> pa.Table:
    """One row of output for each scored row, in order."""
    indexes = np.asarray(scored.indexes, np.int64)
    numbers = np.asarray(rows.numbers, np.int64)[indexes]
    columns: list[Any] = [pa.repeat(pa.scalar(file.name, pa.string()), len(indexes)), pa.array(numbers)]
    fields = [pa.field("file", pa.string()), pa.field("row", pa.int64())]
    answered = {"file", "row", *scored.columns}
    taken = {*answered, *job.copied.names}
    for field in job.copied:
        values = rows.copied[field.name]
        columns.append(values if len(indexes) == len(rows.numbers) else values.take(pa.array(indexes)))
        name = free_name(field.name, taken) if field.name in answered else field.name
        taken.add(name)
        # Nested values are JSON texts where the output has no other form for them.
        is_json = field.metadata == JSON_TEXT or (types.is_nested(field.type) and not types.is_nested(values.type))
        fields.append(pa.field(name, values.type, metadata=JSON_TEXT if is_json else None))
    for name, values in scored.columns.items():
        fields.append(pa.field(name, values.type))
        columns.append(values)
    return pa.table(columns, schema=pa.schema(fields))


def free_name(name: str, taken: set[str]) -> str:
    """The name of a copied column in the output."""
    while name in taken:
        name = f"input_{name}"
    return name


def row_ids(job: Job, rows: Rows, indexes: Sequence[int]) -> list[Any]:
    """The ids of some rows, as JSON has them; None for each if the job has no id column."""
    if job.id_column is None:
        return [None] * len(indexes)
    return as_json(rows.copied[job.id_column], job.copied.field(job.id_column), indexes)
