"""Appends the predictions of a job to a table, exactly once: `--append-to`.

_ledger/appended-NNNNNN.json   the mark of what was appended: of the whole job, or of the files that run N found new

The mark is a hash of the keys of the shards, and the commit that appends their rows to the table holds it. Invariant: a
mark has at most one commit, whenever a process was killed, because it is looked up before each commit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from service.manifest import Manifest
from service.scoring.input.files import file_system
from service.scoring.job import Job, ScoringError, digest
from service.scoring.output.ledger import Ledger, Record, to_json
from service.scoring.output.partitions.sink import partition_types
from service.scoring.output.partitions.values import NULL_PARTITION
from service.scoring.output.tables.delta import DeltaTarget
from service.scoring.output.tables.iceberg import NAME, IcebergTarget
from service.scoring.output.tables.schema import check_fits, conform, prediction_schema
from service.scoring.storage.location import exact_location, parse_location


class Target(Protocol):
    place: str

    def schema(self) -> pa.Schema | None: ...

    def append(self, mark: str, schema: pa.Schema, batches: Callable[[pa.Schema], pa.RecordBatchReader]) -> bool: ...


def parse_table(text: str, *, output: str) -> str:
    """The place of the table in the form that a job stores; it is checked that it lies outside of the output."""
    if NAME.fullmatch(text):
        return text
    location = parse_location(text, option="--append-to")
    if exact_location(output).holds(location):
        raise ScoringError(f"--append-to {location}: lies in the output of the job: choose another folder")
    return location.uri


def check_table(job: Job, manifest: Manifest) -> None:
    """Raise ScoringError unless the table can take the predictions, or can be created for them."""
    if job.sink != "parquet":
        raise ScoringError(f"--append-to: needs --output-format parquet, not {job.sink}")
    target, predictions = _open_target(job, manifest), prediction_schema(job, manifest)
    table = target.schema()
    if table is not None:
        check_fits(table, predictions, target.place)


def append_predictions(
    job: Job,
    manifest: Manifest,
    ledger: Ledger,
    increments: Sequence[Sequence[str]] | None,
    message: Callable[[str], None],
) -> dict[str, bytes]:
    """Append what is not in the table yet, and return the files of the ledger about it.

    `increments` are the names of the files that each run found new; None if the job is one increment.
    """
    by_file: dict[str, list[Record]] = {}
    for record in ledger.records():
        by_file.setdefault(record.file, []).append(record)
    documents = dict[str, bytes]()
    target, predictions = _open_target(job, manifest), prediction_schema(job, manifest)
    with ledger.exclusive():
        for number, names in enumerate([list(by_file)] if increments is None else increments):
            records = [record for name in names for record in by_file.get(name, ())]
            rows = sum(record.scored for record in records)
            if not rows:
                continue
            mark = f"ekiben-{digest(*(record.key for record in records))}"
            content = {"table": target.place, "mark": mark, "rows": rows}
            name = f"_ledger/appended-{number:06d}.json"
            documents[name] = to_json(content)
            if ledger.holds_document(name, content):
                continue
            if not target.append(mark, predictions, partial(_reader, job, ledger, records)):
                message(f"{target.place} holds these {rows:,} rows already; they are not appended again")
            ledger.write_document(name, content)
    return documents


def _open_target(job: Job, manifest: Manifest) -> Target:
    assert job.append_to is not None
    if NAME.fullmatch(job.append_to):
        return IcebergTarget(job.append_to)
    names = prediction_schema(job, manifest).names
    places = [
        2 + job.copied.names.index(name) if name in job.copied.names else names.index(name) for name in job.partition_by
    ]
    return DeltaTarget(exact_location(job.append_to), tuple(names[place] for place in places))


def _reader(job: Job, ledger: Ledger, records: Sequence[Record], table: pa.Schema) -> pa.RecordBatchReader:
    """The rows of the records in the columns of the table, part by part."""
    return pa.RecordBatchReader.from_batches(table, conform(_batches(job, ledger, records), table))


def _batches(job: Job, ledger: Ledger, records: Sequence[Record]) -> Iterator[pa.RecordBatch]:
    system, folder = file_system(ledger.output.uri)
    for record in records:
        for name in sorted(record.parts):
            if not name.startswith("predictions/"):
                continue
            partition = _partition(job, name)
            with system.open_input_file(f"{folder}/{name}" if folder else name) as file:
                for batch in pq.ParquetFile(file).iter_batches():
                    for column, value in partition.items():
                        batch = batch.append_column(column, pa.repeat(value, len(batch)))  # noqa: PLW2901 - a column more
                    yield batch


def _partition(job: Job, name: str) -> Mapping[str, pa.Scalar]:
    """The values that the folders of a part hold."""
    levels = [folder.partition("=") for folder in PurePosixPath(name).parts[1:-1]]
    texts = {unquote(column): None if value == NULL_PARTITION else unquote(value) for column, _, value in levels}
    kinds = zip(texts.items(), partition_types(job), strict=True)
    return {column: pa.scalar(text, pa.string()).cast(kind) for (column, text), kind in kinds}
