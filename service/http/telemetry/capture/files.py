"""Parquet files that grow in memory and are complete on disk, in one folder for each model, with bounded space.

Invariant: a file appears whole under its name, is never written again, and only this user may read it. All files of all
processes together take at most `max_bytes`.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

ROTATE_S = 60.0
ROTATE_BYTES = 8 << 20  # of the columns in memory
PATTERN = "*/ekiben-*.parquet"
# Of the columns that every file has; the others have the types of what they hold.
TYPES = {
    "ekiben_id": "string",
    "ekiben_item": "int64",
    "ekiben_route": "string",
    "ekiben_model": "string",
    "ekiben_version": "string",
    "ekiben_status": "int64",
    "ekiben_seconds": "float64",
    "ekiben_request": "string",
    "ekiben_body": "binary",
    "ekiben_answer": "string",
}


def has_parquet() -> bool:
    """Whether the optional package is installed that files are written with."""
    return find_spec("pyarrow") is not None


class ParquetFiles:
    """Used by one thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Raises OSError if the folder cannot be made or written."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._num_bytes = 0
        self._rotated_at = time.monotonic()
        self._num_files = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            pass

    def add(self, model: str, version: str, rows: list[dict[str, Any]]) -> None:
        """Add rows to the file of this version of a model."""
        self._rows.setdefault((model, version), []).extend(rows)
        self._num_bytes += sum(_size(value) for row in rows for value in row.values())

    def rotate(self) -> None:
        """Write the files if they are old or large."""
        if self._num_bytes >= ROTATE_BYTES or time.monotonic() >= self._rotated_at + ROTATE_S:
            self.close()

    def close(self) -> None:
        """Write all rows to files. Raises OSError; the rows are lost then."""
        rows, self._rows, self._num_bytes, self._rotated_at = self._rows, {}, 0, time.monotonic()
        for (model, version), of_model in rows.items():
            self._write(model, version, of_model)

    def _write(self, model: str, version: str, rows: list[dict[str, Any]]) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415 - optional

        self._num_files += 1
        name = (
            f"ekiben-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{version}-{os.getpid()}-{self._num_files}.parquet"
        )
        target = self._folder / model / name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = target.with_name(f".{name}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                pq.write_table(_table(rows), file, compression="zstd")
            with self._locked():
                if self._make_room(temporary.stat().st_size):
                    temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, num_bytes: int) -> bool:
        """Delete the oldest files until one of this size fits; false if it never does."""
        if num_bytes > self._max_bytes:
            return False
        found = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._folder.glob(PATTERN))
        used = sum(size for _, size, _ in found)
        for _, size, path in found:
            if used + num_bytes <= self._max_bytes:
                break
            path.unlink()
            used -= size
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the folder; the lock ends with its process."""
        with (self._folder / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - optional

    columns = {"ekiben_time": pa.array([int(row["ekiben_time"] * 1e6) for row in rows], pa.timestamp("us", "UTC"))}
    for name, kind in TYPES.items():
        columns[name] = pa.array([row[name] for row in rows], kind)
    for name in dict.fromkeys(name for row in rows for name in row if name not in columns):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError):
            # Values of several types, such as pixels in one request and a PNG in another.
            columns[name] = pa.array([None if value is None else _json_text(value) for value in values])
    return pa.table(columns)


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _size(value: Any) -> int:
    """The size of a value in bytes, roughly."""
    if isinstance(value, list):
        return 8 + sum(map(_size, value))
    return len(value) if isinstance(value, str | bytes) else 8
