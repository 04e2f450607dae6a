"""An Iceberg table of a catalog that predictions are appended to, each set of them in one snapshot with its mark.

The mark is a property of the snapshot. It is looked up in the very metadata that the commit builds on; a commit that
meets another one fails and starts again with the look-up. Needs the package `pyiceberg` (dependency group `tables`).
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from service.scoring.job import ScoringError

NAME = re.compile(r"[^./\\]+(\.[^./\\]+){2,}")
PROPERTY = "ekiben.mark"
MAX_ATTEMPTS = 5


class IcebergTarget:
    def __init__(self, place: str) -> None:
        self.place = place
        self._catalog_name, _, self._name = place.partition(".")
        try:
            from pyiceberg import catalog, exceptions  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise ScoringError(f"--append-to {place}: needs the dependency group `tables`: {error}") from error
        self._exceptions: Any = exceptions
        with self._errors():
            self._catalog: Any = catalog.load_catalog(self._catalog_name)

    def schema(self) -> pa.Schema | None:
        """The columns of the table; None if it is to be created."""
        table = self._open()
        if table is None:
            namespace = self._name.rpartition(".")[0]
            with self._errors():
                if not self._catalog.namespace_exists(namespace):
                    raise ScoringError(
                        f"--append-to {self.place}: the catalog has no namespace {namespace!r}: create it"
                    )
            return None
        if table.spec().fields:
            raise ScoringError(f"--append-to {self.place}: rows cannot be streamed into a partitioned Iceberg table")
        return _schema_of(table)

    def append(self, mark: str, schema: pa.Schema, batches: Callable[[pa.Schema], pa.RecordBatchReader]) -> bool:
        """Append rows in one snapshot; False if the table holds them. `schema` is that of a table to be created."""
        for attempt in range(MAX_ATTEMPTS):
            table = self._open() or self._create(schema)
            if _has_mark(table, mark):
                return False
            # The commit must not be repeated on metadata in which the mark was not looked up.
            table.metadata.properties["commit.retry.num-retries"] = "0"
            try:
                with self._errors():
                    table.append(batches(_schema_of(table)), snapshot_properties={PROPERTY: mark})
                return True
            except self._exceptions.CommitFailedException as error:
                if attempt == MAX_ATTEMPTS - 1:
                    raise ScoringError(f"--append-to {self.place}: {error}") from error
        return False

    def _open(self) -> Any:
        try:
            with self._errors():
                return self._catalog.load_table(self._name)
        except self._exceptions.NoSuchTableError:
            return None

    def _create(self, schema: pa.Schema) -> Any:
        with self._errors():
            return self._catalog.create_table_if_not_exists(self._name, schema=schema)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise ScoringError for what the catalog or its store answers, but for what a caller handles."""
        try:
            yield
        except (ScoringError, self._exceptions.NoSuchTableError, self._exceptions.CommitFailedException):
            raise
        except Exception as error:
            line = str(error).strip().partition("\n")[0][:500]
            raise ScoringError(
                f"--append-to {self.place}: catalog {self._catalog_name!r}: {type(error).__name__}: {line} (the Delta "
                f"table in a folder of this name is ./{self.place})"
            ) from error


def _has_mark(table: Any, mark: str) -> bool:
    summaries = [snapshot.summary for snapshot in table.snapshots()]
    return any(summary is not None and summary.additional_properties.get(PROPERTY) == mark for summary in summaries)


def _schema_of(table: Any) -> pa.Schema:
    from pyiceberg.io.pyarrow import schema_to_pyarrow  # noqa: PLC0415 - an extra

    schema: pa.Schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
    return schema
