"""The columns of the predictions in a table, and whether a table that exists can take them.

Invariant: every value is the same in the table, or the job is refused before the first row. A type that tables do not
have becomes one that holds all of its values: unsigned integers a wider type, seconds and milliseconds microseconds.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyarrow import types

from service.manifest import Manifest
from service.scoring.input.files import InputFile
from service.scoring.input.rows import Rows
from service.scoring.input.schema import common_type, leaf_types, with_leaves
from service.scoring.job import Job, ScoringError
from service.scoring.output.copied import to_output
from service.scoring.output.join import join_predictions
from service.scoring.scorers.answer_schema import answer_columns
from service.scoring.scorers.scorer import ScoredRows

WIDER = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0)}
NO_FILE = InputFile(uri="", name="", format="parquet", size=0, fingerprint="")


def prediction_schema(job: Job, manifest: Manifest) -> pa.Schema:
    """The columns of the predictions as a table has them. Raises ScoringError for a type that no table has."""
    copied = {field.name: to_output(pa.array([], field.type), "parquet")[0] for field in job.copied}
    rows = Rows(numbers=[], columns={}, copied=copied)
    answers = answer_columns(manifest, job.input_format, job.columns, job.request)
    found = join_predictions(job, NO_FILE, rows, ScoredRows(indexes=[], columns=answers, faults={})).schema
    for field in found:
        for leaf in leaf_types(field.type):
            if types.is_duration(leaf) or types.is_time(leaf) or (types.is_timestamp(leaf) and leaf.unit == "ns"):
                raise ScoringError(
                    f"--append-to: column {field.name!r} is {field.type}, and tables have no {leaf}: cast it, or leave "
                    "it out"
                )
    return pa.schema([(field.name, table_type(field.type)) for field in found])


def table_type(kind: pa.DataType) -> pa.DataType:
    """A type of tables that holds the values of a type of Arrow."""
    kind = with_leaves(kind, _leaf)
    if types.is_struct(kind):
        return pa.struct([field.with_type(table_type(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(table_type(kind.key_type), table_type(kind.item_type))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(table_type(kind.value_type))
    return kind


def check_fits(table: pa.Schema, predictions: pa.Schema, place: str) -> None:
    """Raise ScoringError, with column and types, unless the table can take the predictions."""
    for field in predictions:
        if field.name not in table.names:
            raise ScoringError(
                f"--append-to {place}: the table has no column {field.name!r} ({field.type}); its columns are "
                f"{', '.join(table.names)}: add it to the table, or choose another one"
            )
        kind = table_type(table.field(field.name).type)
        if common_type(kind, field.type) != kind:
            raise ScoringError(
                f"--append-to {place}: column {field.name!r} of the table is {kind}, which does not hold {field.type}"
            )
    for field in table:
        if field.name not in predictions.names and not field.nullable:
            raise ScoringError(
                f"--append-to {place}: column {field.name!r} of the table must not be null, and the predictions "
                "have no such column"
            )


def conform(batches: Iterable[pa.RecordBatch], table: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches with the columns of a table; columns that they lack are null."""
    for batch in batches:
        columns = [
            batch.column(field.name).cast(field.type)
            if field.name in batch.schema.names
            else pa.nulls(len(batch), field.type)
            for field in table
        ]
        yield pa.record_batch(columns, schema=table)


def _leaf(kind: pa.DataType) -> pa.DataType:
    if types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if types.is_large_string(kind) or types.is_null(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return pa.binary()
    return pa.date32() if types.is_date(kind) else WIDER.get(kind, kind)
