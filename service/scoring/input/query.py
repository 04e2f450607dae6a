"""The result of a SQL query as input: asked once, and kept as an Arrow file in the ledger of the job.

PostgreSQL is asked through ADBC, which needs the dependency group `sql`. Invariants: `Query.identity` and every message
are free of credentials. A value of SQLite, where each has a type of its own, is exact, or the query fails.
"""

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pyarrow as pa

from service.scoring.input.arrow_table import BATCH_ROWS
from service.scoring.job import ScoringError
from service.scoring.storage.location import SCHEME

SQLITE, POSTGRESQL = "sqlite3", "adbc_driver_postgresql.dbapi"
DRIVERS = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "postgres": POSTGRESQL}
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
            driver: Any = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            raise ScoringError(f"--input {self.place}: a query needs the dependency group `sql`: {error}") from error
        with path.open("wb") as file:
            try:
                # Nothing is committed, so that a statement that changes the database changes nothing.
                if self.module == SQLITE:
                    with closing(driver.connect(self.uri, uri=True)) as connection:
                        connection.text_factory = _Text
                        self._copy(*_sqlite_batches(connection.execute(self.sql)), file)
                else:
                    with driver.connect(self.uri) as connection, connection.cursor() as cursor:
                        cursor.execute(self.sql)
                        reader = cursor.fetch_record_batch()
                        self._copy(reader.schema, reader, file)
            except (driver.Error, driver.Warning, pa.ArrowException, ValueError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the file
                    raise
                raise ScoringError(f"--input {self.place}: the query failed: {self._line(error)}") from None
            file.flush()
            os.fsync(file.fileno())

    def _copy(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: Any) -> None:
        if not schema.names:
            raise ScoringError(f"--input {self.place}: the query gives no columns; expected a SELECT")
        with pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
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
    return Query(module=SQLITE, uri=f"file:{quote(str(path))}?mode=ro", place=f"sqlite:///{path}", sql=sql)


class _Text(bytes):
    """A text of SQLite, which need not be UTF-8."""


def _sqlite_batches(cursor: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns of an answer, with the types of their first values, and its rows. Iterating may raise ValueError."""
    names = [column[0] for column in cursor.description or ()]
    first = cursor.fetchmany(BATCH_ROWS)
    columns = list(zip(*first, strict=True)) or [()] * len(names)
    schema = pa.schema(list(zip(names, map(_sqlite_type, columns), strict=True)))

    def batches() -> Iterator[pa.RecordBatch]:
        number, rows = 0, first
        while rows:
            columns = zip(schema, zip(*rows, strict=True), strict=True)
            yield pa.record_batch([_sqlite_column(field, values, number) for field, values in columns], schema)
            number += len(rows)
            rows = cursor.fetchmany(BATCH_ROWS)

    return schema, batches()


def _sqlite_type(values: Sequence[Any]) -> pa.DataType:
    """The type that values have in common."""
    kinds = set(map(type, values)) - {type(None)}
    if bytes in kinds:
        return pa.binary()
    if _Text in kinds:
        return pa.string()
    return pa.float64() if float in kinds else pa.int64() if kinds else pa.null()


def _sqlite_column(field: pa.Field, values: Sequence[Any], number: int) -> pa.Array:
    """The values of the rows from `number` on in the type of their column. Raises ValueError if one does not fit."""
    read = [_sqlite_value(value, field.type) for value in values]
    bad = next((i for i, value in enumerate(read) if value is NotImplemented), None)
    if bad is not None:
        raise ValueError(
            f"row {number + bad}: column {field.name!r} is {field.type} by its first {BATCH_ROWS} values, which does "
            f"not hold {values[bad]!r:.40} exactly: CAST it in the query"
        )
    # Invalid UTF-8 is reported for its row by the reader of the file, so it is not checked here.
    return (
        pa.array(read, pa.binary()).cast(field.type, safe=False)
        if field.type == pa.string()
        else pa.array(read, field.type)
    )


def _sqlite_value(value: Any, kind: pa.DataType) -> Any:
    """The value in the type of its column; NotImplemented if that does not hold it exactly."""
    if kind == pa.string() and isinstance(value, int | float):
        return str(value).encode()
    if kind == pa.float64() and isinstance(value, int):
        return float(value) if float(value) == value else NotImplemented
    expected = {pa.int64(): int, pa.float64(): float, pa.string(): _Text, pa.binary(): bytes}.get(kind)
    return value if value is None or type(value) is expected else NotImplemented
