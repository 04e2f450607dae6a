"""A Delta table that predictions are appended to, each set of them in one commit that holds its mark.

The mark is the id of an application transaction, which Delta keeps in the table's log and in its checkpoints: two
commits of one mark exclude each other. Needs the package `deltalake` (dependency group `tables`).
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from service.scoring.input.files import file_system
from service.scoring.job import ScoringError
from service.scoring.storage.location import Location


class DeltaTarget:
    def __init__(self, location: Location, partition_by: tuple[str, ...]) -> None:
        self._location, self._partition_by = location, partition_by
        self.place = str(location)
        if location.kind not in {"file", "s3", "gs", "az"}:
            raise ScoringError(f"--append-to {location}: {location.scheme} is for input only")
        options = {name: value for name, value in location.options if name != "scheme"}
        if any(value.startswith("http://") for value in options.values()):
            options["allow_http"] = "true"
        # Two writers of one version exclude each other by If-None-Match.
        self._options = {**options, "conditional_put": "etag"} if location.kind == "s3" else options
        try:
            import deltalake  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise ScoringError(f"--append-to {self.place}: needs the dependency group `tables`: {error}") from error
        self._library: Any = deltalake

    def schema(self) -> pa.Schema | None:
        """The columns of the table; None if it is to be created. Raises ScoringError if something else is there."""
        table = self._open()
        if table is not None:
            return _schema_of(table)
        system, path = file_system(self._location.uri)
        found = system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        if found:
            raise ScoringError(
                f"--append-to {self.place}: there are files ({found[0].base_name}) and no Delta table; an Iceberg "
                "table is named CATALOG.NAMESPACE.TABLE"
            )
        return None

    def append(self, mark: str, schema: pa.Schema, batches: Callable[[pa.Schema], pa.RecordBatchReader]) -> bool:
        """Append rows in one commit; False if the table holds them. `schema` is that of a table to be created."""
        # The commit builds on the version in which the mark was looked up, so that two of one mark meet.
        table = self._open() or self._create(schema)
        if _has_mark(table, mark):
            return False
        library = self._library
        properties = library.CommitProperties(
            custom_metadata={"ekiben.mark": mark}, app_transactions=[library.Transaction(mark, 1)]
        )
        try:
            library.write_deltalake(table, batches(_schema_of(table)), mode="append", commit_properties=properties)
        except (library.exceptions.DeltaError, OSError, ValueError) as error:
            # Another process may have been faster.
            if not _has_mark(self._open(), mark):
                raise ScoringError(f"--append-to {self.place}: {_line(error)}") from error
            return False
        return True

    def _create(self, schema: pa.Schema) -> Any:
        library = self._library
        try:
            return library.DeltaTable.create(
                self.place,
                schema=schema,
                mode="ignore",
                partition_by=list(self._partition_by) or None,
                storage_options=self._options,
            )
        except (library.exceptions.DeltaError, OSError, ValueError) as error:
            # Another process may have been faster.
            if (table := self._open()) is None:
                raise ScoringError(f"--append-to {self.place}: {_line(error)}") from error
            return table

    def _open(self) -> Any:
        library = self._library
        try:
            if not library.DeltaTable.is_deltatable(self.place, self._options):
                return None
            return library.DeltaTable(self.place, storage_options=self._options)
        except (library.exceptions.DeltaError, OSError, ValueError) as error:
            raise ScoringError(f"--append-to {self.place}: {_line(error)}") from error


def _has_mark(table: Any, mark: str) -> bool:
    return table is not None and table.transaction_version(mark) is not None


def _schema_of(table: Any) -> pa.Schema:
    return pa.schema(table.schema().to_arrow())


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]
