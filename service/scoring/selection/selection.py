"""The rows that a job scores: those of a sample that fulfil a condition.

Invariant: whether a row is scored depends on its file's name, its number, its values and the job alone. A row that
cannot be read, or whose values cannot be compared, is no row that was left out: it stays, and is rejected.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Column, Rows
from service.scoring.job import Job
from service.scoring.selection.condition import condition_of


def select(job: Job, file: InputFile, rows: Rows) -> Rows:
    """The rows to score, with the number of those that were left out."""
    count = len(rows.numbers)
    if job.sample is not None:
        rows = _taken(rows, np.flatnonzero(in_sample(job, file, rows.numbers)))
    condition = condition_of(job.where)
    if condition is not None:
        current = rows
        fulfilled, faults = condition.evaluate(lambda name: _column(file, current, name))
        faults = {**faults, **rows.faults}
        is_selected = np.array(pc.fill_null(fulfilled, False).to_numpy(zero_copy_only=False), np.bool_)
        is_selected[list(faults)] = True
        rows = _taken(replace(rows, faults=faults), np.flatnonzero(is_selected))
    return replace(rows, left_out=count - len(rows.numbers))


def in_sample(job: Job, file: InputFile, numbers: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether rows belong to the sample, by a hash (splitmix64) of file and number."""
    assert job.sample is not None
    start = np.uint64(xxh3_64_intdigest(f"{job.sample_seed}\0{file.name}".encode("utf-8", "surrogateescape")))
    hashes = np.asarray(numbers).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    return (hashes >> np.uint64(11)) < np.uint64(job.sample * (1 << 53))


def _column(file: InputFile, rows: Rows, name: str) -> Column:
    """A column of the rows, or the `key=value` folder of the file."""
    return rows.columns[name] if name in rows.columns else [file.partitions[name]] * len(rows.numbers)


def _taken(rows: Rows, indexes: npt.NDArray[np.int64]) -> Rows:
    """Some of the rows, in order."""
    if len(indexes) == len(rows.numbers):
        return rows
    positions = {int(old): new for new, old in enumerate(indexes)}
    return replace(
        rows,
        numbers=[int(rows.numbers[i]) for i in positions],
        columns={name: _items(column, indexes) for name, column in rows.columns.items()},
        faults={positions[i]: fault for i, fault in rows.faults.items() if i in positions},
        lines=None if rows.lines is None else [rows.lines[i] for i in positions],
        json_texts={name: [texts[i] for i in positions] for name, texts in rows.json_texts.items()},
    )


def _items(column: Column, indexes: npt.NDArray[np.int64]) -> Column:
    if isinstance(column, pa.Array):
        return column.take(pa.array(indexes))
    return column[indexes] if isinstance(column, np.ndarray) else [column[i] for i in indexes]
