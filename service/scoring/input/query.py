"""The result of a SQL query as input: asked once through ADBC, and kept as an Arrow file in the ledger of the job.

Needs the dependency group `sql`. Invariant: `Query.identity` and every message are free of credentials.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pyarrow as pa

from service.scoring.input.arrow_table import BATCH_ROWS
from service.scoring.job import ScoringError
from service.scoring.storage.location import SCHEME

DRIVERS = {"sqlite": "adbc_driver_sqlite", "postgresql": "adbc_driver_postgresql", "postgres": "adbc_driver_postgresql"}
# The name of the result in the output, in the column `file`.
NAME = "query"


@dataclass(frozen=True, kw_only=True)
class Query:
    """`place` names the database without user, password and options; `uri` is what the driver `module` opens."""

    module: str
    uri: str
    place: str
    sql: str
    secrets: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        return f"{self.place}: {self.sql}"

    def write(self, path: Path) -> None:
        """Ask the database and write the result as an Arrow file, batch by batch. Raises ScoringError, OSError."""
        try:
            dbapi: Any = importlib.import_module(f"{self.module}.dbapi")
        except ModuleNotFoundError as error:
            raise ScoringError(f"--input {self.place}: a query needs the dependency group `sql`: {error}") from error
        with path.open("wb") as file:
            try:
                # Nothing is committed, so that a statement that changes the database changes nothing.
                with dbapi.connect(self.uri) as connection, connection.cursor() as cursor:
                    if self.module == DRIVERS["sqlite"]:
                        # A column of SQLite has the type that these values have in common.
                        cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
                    cursor.execute(self.sql)
                    self._copy(cursor.fetch_record_batch(), file)
            except (dbapi.Error, pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the file
                    raise
                raise ScoringError(f"--input {self.place}: the query failed: {self._line(error)}") from None
            file.flush()
            os.fsync(file.fileno())

    def _copy(self, reader: pa.RecordBatchReader, file: Any) -> None:
        if not reader.schema.names:
            raise ScoringError(f"--input {self.place}: the query gives no columns; expected a SELECT")
        with pa.ipc.new_file(file, reader.schema) as writer:
            for batch in reader:
                for first in range(0, batch.num_rows, BATCH_ROWS):
                    writer.write_batch(batch.slice(first, BATCH_ROWS))

    def _line(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text[:500]


def parse_query(inputs: Sequence[str], sql: str | None) -> Query | None:
    """The query of a job; None if its input is no database. Raises ScoringError."""
    schemes = [match[1].lower() if (match := SCHEME.match(text)) else "" for text in inputs]
    found = [scheme for scheme in schemes if scheme in DRIVERS]
    if sql is None and not found:
        return None
    if not found or len(inputs) != 1:
        raise ScoringError("--query: expected one --input, sqlite:///PATH or postgresql://HOST/DATABASE")
    rest = inputs[0].partition("://")[2]
    head, _, options = rest.partition("?")
    place = f"{found[0]}://{head.rpartition('@')[2]}"
    if "@" in options:
        raise ScoringError(f"--input {found[0]}://…: write @ and ? in names, passwords and options as %40 and %3F")
    if sql is None or not sql.strip():
        raise ScoringError(f"--input {place}: a database needs --query 'SELECT …'")
    if found[0] == "sqlite":
        return _sqlite(place, head, options, sql)
    settings = dict(parse_qsl(options))
    address = [f"{name}={settings[name]}" for name in ("host", "port", "dbname") if name in settings]
    user, _, password = head.rpartition("@")[0].partition(":")
    hidden = [password, *(value for name, value in settings.items() if "password" in name)]
    secrets = {text for value in hidden for text in (value, unquote(value)) if text}
    return Query(
        module=DRIVERS[found[0]],
        uri=inputs[0],
        place=place.replace("postgres://", "postgresql://") + (f"?{'&'.join(address)}" if address else ""),
        sql=sql,
        secrets=tuple(sorted(secrets | ({f"{user}:{password}"} if password else set()), key=len, reverse=True)),
    )


def _sqlite(place: str, head: str, options: str, sql: str) -> Query:
    """Three slashes and a relative path, or four and an absolute one; three will do if nothing else is there."""
    if options or not head.startswith("/"):
        raise ScoringError(f"--input {place}: expected sqlite:///PATH without options")
    path = Path(unquote(head[1:]))
    path = path if path.is_file() else Path(unquote(head))
    if not path.is_file():
        raise ScoringError(f"--input {place}: there is no file {unquote(head[1:])}")
    path = path.resolve()
    return Query(module=DRIVERS["sqlite"], uri=f"file:{quote(str(path))}?mode=ro", place=f"sqlite:///{path}", sql=sql)
