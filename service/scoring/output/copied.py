"""The id and the copied columns of rows, in the types of the job and the form of its output.

Invariant: every kept value is exact, or its row is rejected. Parquet keeps the values of Arrow. CSV and JSON Lines hold
times, dates and decimals as texts, and binaries as base64; in CSV, nested values are JSON texts. No optional package
takes part, so that the same bytes are written everywhere.
"""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Column, Rows
from service.scoring.input.schema import leaf_types, unwrapped, with_leaves
from service.scoring.job import Job, ScoringError, SinkFormat
from service.scoring.output.partitions.values import NULL_PARTITION, value_faults
from service.scoring.sources.text.lines import JSON_TEXT

# The most digits of a decimal of 128 bits, and the days of the years 1 to 9999 from 1970 on.
MAX_DECIMAL_DIGITS = 38
FIRST_DAY, LAST_DAY = -719162, 2932896
# How Arrow writes a time that it cannot render.
OUT_OF_RANGE = "<value out of range"


def with_copied(job: Job, file: InputFile, rows: Rows) -> Rows:
    """The rows with their `copied` columns, and faults for rows with a value that the output cannot hold."""
    copied, faults = dict[str, pa.Array](), dict(rows.faults)
    for field in job.copied:
        column = _column(field, file, rows)
        values, invalid = _to_type(column, field.type)
        if field.metadata != JSON_TEXT:
            values, inexact = to_output(values, job.sink)
            invalid = {**inexact, **invalid}
        if field.name in job.partition_by:
            invalid = {**value_faults(values, field, field.name), **invalid}
        copied[field.name] = values
        faults = {**{i: f"column {field.name!r}: {reason}" for i, reason in invalid.items()}, **faults}
    return replace(rows, copied=copied, faults=faults)


def check_writable(copied: pa.Schema, sink: SinkFormat) -> None:
    """Raise ScoringError for a column whose type the output cannot hold."""
    for field in copied:
        try:
            if any(types.is_interval(leaf) or types.is_union(leaf) for leaf in leaf_types(field.type)):
                raise pa.ArrowNotImplementedError("it has no form there")
            to_output(pa.array([], field.type), sink)
        except (pa.ArrowException, NotImplementedError) as error:
            raise ScoringError(f"--keep {field.name}: a column {field.type} cannot be written: {error}") from error


def _column(field: pa.Field, file: InputFile, rows: Rows) -> pa.Array:
    """A column as Arrow has it, of any type."""
    texts, column = rows.json_texts.get(field.name), rows.columns.get(field.name)
    if texts is not None:
        return pa.array(texts, pa.string())
    if column is None:
        value = file.partitions.get(field.name)
        return pa.repeat(pa.scalar(None if value == NULL_PARTITION else value, pa.string()), len(rows.numbers))
    return to_arrow(column, field.type)


def to_arrow(column: Column, kind: pa.DataType) -> pa.Array:
    """A column of a source as an Arrow array; texts and bytes have the type `kind`."""
    if isinstance(column, pa.Array):
        return unwrapped(column)
    if isinstance(column, np.ndarray):
        return unwrapped(_to_lists(column))
    return pa.array(column, kind)


def _to_type(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """The column in the type of the job; a value that does not fit becomes null and a fault."""
    if column.type == kind:
        return column, {}
    try:
        return column.cast(kind, safe=True), {}
    except pa.ArrowInvalid:
        parts, faults = list[pa.Array](), dict[int, str]()
        for i in range(len(column)):
            try:
                parts.append(column.slice(i, 1).cast(kind, safe=True))
            except pa.ArrowInvalid:
                faults[i] = f"the value does not fit {kind}, which the files of the job have in common"
                parts.append(pa.nulls(1, kind))
        return pa.concat_arrays(parts), faults


def to_output(column: pa.Array, sink: SinkFormat) -> tuple[pa.Array, dict[int, str]]:
    """The values in the form of an output, and why some rows have none."""
    kind = column.type
    if sink == "parquet":
        return _to_parquet(column)
    if types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind) or _is_text(kind):
        return column, {}
    if types.is_floating(kind):
        return column, _not_finite(column) if sink == "jsonl" else {}
    if _is_binary(kind):
        return pa.array([None if v is None else base64.b64encode(v).decode() for v in column.to_pylist()]), {}
    if types.is_nested(kind):
        return _json(_leaf_texts(column.cast(_without_maps(kind))))
    texts = _leaf_texts(column)
    return texts, _out_of_range(texts)


def _to_parquet(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """The column of Arrow, as a text if not every reader of Parquet has its type.

    Python's times have microseconds, and its dates end with the year 9999; few readers have decimals of 39 digits.
    """
    kind = column.type
    if kind == pa.time64("ns") or (types.is_decimal(kind) and kind.precision > MAX_DECIMAL_DIGITS):
        return _leaf_texts(column), {}
    if types.is_date(kind):
        days = column.cast(pa.date32()).cast(pa.int32())
        is_date = pc.and_(pc.greater_equal(days, FIRST_DAY), pc.less_equal(days, LAST_DAY))
        return column, _faults(pc.invert(is_date), _NO_DATE)
    return column, {}


def _without_maps(kind: pa.DataType) -> pa.DataType:
    """A type with lists of key and value in place of maps, because JSON has no lists of pairs of two types."""
    if types.is_map(kind):
        key, value = kind.key_field, kind.item_field
        pair = [key.with_type(_without_maps(key.type)), value.with_type(_without_maps(value.type))]
        return pa.list_(pa.struct([pair[0].with_name("key"), pair[1].with_name("value")]))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_without_maps(field.type)) for field in kind])
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_without_maps(kind.value_type)), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        list_of = pa.list_ if types.is_list(kind) else pa.large_list
        return list_of(kind.value_field.with_type(_without_maps(kind.value_type)))
    return kind


def _json(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Nested values as JSON texts, marked as such by the schema of the output."""
    values = [None if value is None else orjson.dumps(value, default=_base64).decode() for value in column.to_pylist()]
    faults = {i: _TOO_FAR for i, text in enumerate(values) if text is not None and OUT_OF_RANGE in text}
    if any(types.is_floating(leaf) for leaf in leaf_types(column.type)):
        faults |= {i: _NOT_JSON for i, value in enumerate(column.to_pylist()) if not _is_finite(value)}
    return pa.array(values, pa.string()), faults


_TOO_FAR = "the time is too far away to be written as a text: use --output-format parquet"
_NO_DATE = "few readers of Parquet have dates before the year 1 or beyond 9999: use --output-format csv or jsonl"
_NOT_JSON = "JSON has no NaN and no infinity: use --output-format parquet"


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode()


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or np.isfinite(value)


def _not_finite(column: pa.Array) -> dict[int, str]:
    return _faults(pc.invert(pc.is_finite(column)), _NOT_JSON)


def _out_of_range(texts: pa.Array) -> dict[int, str]:
    return _faults(pc.starts_with(texts, OUT_OF_RANGE), _TOO_FAR)


def _faults(bad: pa.Array, reason: str) -> dict[int, str]:
    """The reason for each row that is bad; null is not."""
    is_bad = pc.fill_null(bad, False)
    return {int(i): reason for i in np.flatnonzero(is_bad.to_numpy(zero_copy_only=False))}


def _leaf_texts(column: pa.Array) -> pa.Array:
    """The column with texts in place of its times, dates, durations and decimals."""
    if types.is_duration(column.type):
        unit = pa.scalar(f" {column.type.unit}")
        return pc.binary_join_element_wise(column.cast(pa.int64()).cast(pa.string()), unit, "")
    utc = with_leaves(column.type, _to_utc)
    column = column if utc == column.type else column.cast(utc)
    texts = with_leaves(column.type, lambda leaf: pa.string() if _needs_text(leaf) else leaf)
    return column if texts == column.type else column.cast(texts)


def _to_utc(leaf: pa.DataType) -> pa.DataType:
    """The time zone decides how a time is shown, not which one it is; UTC needs no data base of time zones."""
    return pa.timestamp(leaf.unit, "UTC") if types.is_timestamp(leaf) and leaf.tz else leaf


def _needs_text(leaf: pa.DataType) -> bool:
    return bool(types.is_temporal(leaf) or types.is_decimal(leaf))


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _to_lists(array: npt.NDArray[Any]) -> pa.Array:
    """An array [rows, ...] as a column of nested lists."""
    flat = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat


def as_json(column: pa.Array, field: pa.Field, indexes: Sequence[int]) -> list[Any]:
    """Some kept values as JSON has them."""
    taken = column.take(pa.array(indexes, pa.int64()))
    is_json = field.metadata == JSON_TEXT or types.is_nested(field.type)
    if taken.type == field.type and field.metadata != JSON_TEXT:
        taken, _ = to_output(taken, "jsonl")
    values = cast(list[Any], taken.to_pylist())
    return [orjson.Fragment(value) if is_json and value is not None else value for value in values]
