"""The result of a job for its caller, and the errors of jobs in the words of Python."""

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from service.scoring.input.files import file_system
from service.scoring.job import ScoringError, SinkFormat
from service.scoring.output.ledger import open_folder
from service.scoring.storage.location import exact_location

# Options of the command whose parameter has another name.
PARAMETERS = {"input": "inputs", "id": "id_column", "column": "columns", "set": "request", "no-header": "header"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a job has written, in the format `sink`.

    `summary` is None if the job did not finish; `computed` counts the rows that the call scored or rejected. `dropped`
    shards were being scored when a cancelled job had used up its time. `partitions` are the types of the columns that
    the folders of the predictions hold. `uri` may hold credentials: it is a `Location.uri`.
    """

    uri: str = field(repr=False)
    sink: SinkFormat
    partitions: tuple[pa.DataType, ...] = ()
    summary: Mapping[str, Any] | None
    failures: tuple[str, ...] = ()
    computed: int = 0
    seconds: float = 0.0
    dropped: int = 0

    @property
    def reject_share(self) -> float:
        return self.summary["rejected"] / max(self.summary["rows"], 1) if self.summary else 0.0

    @property
    def changed(self) -> list[str]:
        """The files that have changed since they were scored, of an input that grows."""
        return list(self.summary.get("input_changes", {}).get("changed", ())) if self.summary else []

    @property
    def output(self) -> str:
        """The folder as a local path, or a URI without options."""
        return str(exact_location(self.uri))

    @property
    def predictions(self) -> list[str]:
        """The files of predictions, in order: local paths, or URIs without options."""
        return self._places("predictions")

    @property
    def rejects(self) -> list[str]:
        """The files of rejected rows, in order; those of an OpenAI batch are its error files."""
        return self._places("rejects") + self._places("errors")

    def to_table(self) -> pa.Table:
        """Return all predictions in order, by partition if there are any; an empty table if there are none."""
        import pyarrow.dataset as pads  # noqa: PLC0415 - slow to import, and few jobs need it

        names = self._names("predictions")
        if not names:
            return pa.table({})
        system, folder = file_system(self.uri)
        files = [f"{folder}/{name}" if folder else name for name in names]
        options = pads.FileSystemFactoryOptions(partition_base_dir=f"{folder}/predictions" if folder else "predictions")
        if self.partitions:
            columns = [unquote(level.partition("=")[0]) for level in names[0].split("/")[1:-1]]
            schema = pa.schema(list(zip(columns, self.partitions, strict=True)))
            options.partitioning = pads.partitioning(schema, flavor="hive")
        formats = {"parquet": pads.ParquetFileFormat, "csv": pads.CsvFileFormat, "jsonl": pads.JsonFileFormat}
        return pads.FileSystemDatasetFactory(system, files, formats[self.sink](), options).finish().to_table()

    def _places(self, folder: str) -> list[str]:
        return [str(exact_location(self.uri).child(name)) for name in self._names(folder)]

    def _names(self, folder: str) -> list[str]:
        """The parts in a folder, by their paths below the output."""
        with closing(open_folder(exact_location(self.uri))) as output:
            return sorted(output.sizes(f"{folder}/"))


class JobFailedError(ScoringError):
    """A job that failed or was cancelled, or rejected more rows than it may. `result` is what it reached."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def check_result(result: Result, max_rejects: float, *, ignore_changed: bool = False, name: str = "") -> None:
    """Raise JobFailedError unless the job is finished, at most the share `max_rejects` of its rows was rejected, and no
    file has changed since it was scored.

    `name` is that of the job among those of several models.
    """
    title = f"{name}: " if name else ""
    if result.failures:
        raise JobFailedError("; ".join(result.failures), result)
    if result.summary is None:
        raise JobFailedError(
            f"{title}cancelled, {result.dropped} shards dropped; the same call resumes the job", result
        )
    if result.reject_share > max_rejects:
        counts = f"{result.summary['rejected']:,} of {result.summary['rows']:,} rows were rejected"
        raise JobFailedError(
            f"{title}{counts}, more than max_rejects={max_rejects:g} allows: see {result.output}", result
        )
    if result.changed and not ignore_changed:
        raise JobFailedError(
            f"{title}{', '.join(result.changed)}: changed after being scored, see ignore_changed", result
        )


def in_python(message: str) -> str:
    """Return a message with the parameters of `score` in place of the options of the command."""
    message = re.sub(r"--(column|set) ([\w/]+)=(\S+?)(?=[;,:]|\s|$)", r'--\1={"\2": \3}', message)
    return re.sub(
        r"(?<!\w)--([a-z]+(?:-[a-z]+)*)", lambda found: PARAMETERS.get(found[1], found[1].replace("-", "_")), message
    )
