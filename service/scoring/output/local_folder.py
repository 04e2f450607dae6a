"""An output folder of a POSIX file system, local or shared with locks and atomic renames.

_ledger/lock   one byte for each shard, locked by the process that scores it
_ledger/work   files that are being written

Invariant: a file becomes visible only when it is complete: it is written under another name and then renamed. A lock
is released when its process dies.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from service.scoring.job import ScoringError
from service.scoring.output.folder import LEDGER, PARTS, PROGRESS_FOLDER

FINISH_BYTE = (1 << 62) - 1


class LocalFolder:
    def __init__(self, path: Path) -> None:
        self._path, self._work = path, path / LEDGER / "work"
        self._lock_fd: int | None = None

    def prepare(self) -> None:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ScoringError(f"--output {self._path} is not a folder") from None
        others = [entry.name for entry in os.scandir(self._path) if entry.name != LEDGER]
        if others:
            raise ScoringError(f"--output {self._path} is not empty ({others[0]}) and holds no scoring job")
        for folder in (self._path / LEDGER / "shards", self._work):
            folder.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        for name in names:
            try:
                yield self.read(name)
            except FileNotFoundError:
                yield None

    def preload(self, prefix: str) -> None:
        """Reading one file at a time is fast."""

    def create(self, name: str, content: bytes) -> bool:
        written = self._write_aside(name, content)
        try:
            _sync(written)
            with contextlib.suppress(FileExistsError):
                os.link(written, self._path / name)
            _sync((self._path / name).parent)
        finally:
            written.unlink()
        return self.read(name) == content

    def write(self, name: str, content: bytes, *, sync: bool = False) -> None:
        written = self._write_aside(name, content)
        if sync:
            _sync(written)
        self._move(written, name)

    def commit(self, name: str, content: bytes) -> None:
        """Does not wait for the disk: a record that a power cut damages is written again."""
        self.write(name, content)

    def publish(self, parts: Mapping[str, Path]) -> None:
        for name, written in parts.items():
            self._move(written, name)

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        folders = [prefix] if prefix else ["", LEDGER, *SUBFOLDERS]
        paths = [path for folder in folders for path in self._folders(folder.rstrip("/"))]
        entries = [entry for path in paths for entry in os.scandir(path) if entry.is_file()]
        return {Path(entry.path).relative_to(self._path).as_posix(): entry.stat().st_size for entry in entries}

    def sha256(self, name: str) -> str:
        return sha256_of(self._path / name)

    def is_intact(self, name: str, *, size: int, sha256: str, verify: bool) -> bool:  # noqa: ARG002 - see the interface
        try:
            return self.sha256(name) == sha256
        except FileNotFoundError:
            return False

    def work_path(self, name: str) -> Path:
        self._work.mkdir(exist_ok=True)
        return self._work / name

    def clear_work(self) -> None:
        for folder in (self._work, self._path / PROGRESS_FOLDER):
            shutil.rmtree(folder, ignore_errors=True)

    def try_lock(self, name: str) -> bool:
        try:
            fcntl.lockf(self._lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _lock_byte(name))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(self, name: str) -> None:
        fcntl.lockf(self._lock_file(), fcntl.LOCK_UN, 1, _lock_byte(name))

    def sync(self) -> None:
        for folder in (self._path, *(path for name in SUBFOLDERS for path in self._folders(name))):
            for path in [*(path for path in folder.iterdir() if path.is_file()), folder]:
                _sync(path)

    def close(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _move(self, written: Path, name: str) -> None:
        target = self._path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        written.replace(target)

    def _folders(self, name: str) -> list[Path]:
        """The folder and, if it holds parts, the folders of partitions below it; none if it does not exist."""
        folder = self._path / name
        if name not in PARTS:
            return [folder] if folder.is_dir() else []
        return [Path(path) for path, _, _ in os.walk(folder)]

    def _lock_file(self) -> int:
        """The lock file, opened once: a process that closes any handle of a file loses all its locks on it."""
        if self._lock_fd is None:
            path = self._path / LEDGER / "lock"
            self._lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._lock_fd

    def _write_aside(self, name: str, content: bytes) -> Path:
        """Write to a file in the work folder, to be renamed to `name`."""
        self._work.mkdir(exist_ok=True)
        written = self._work / f"{Path(name).name}.{os.getpid()}"
        try:
            written.write_bytes(content)
        except OSError:
            written.unlink(missing_ok=True)
            raise
        return written


# The folders of visible files and records.
SUBFOLDERS = (f"{LEDGER}/shards", *PARTS)


def _lock_byte(name: str) -> int:
    if name == "finish":
        return FINISH_BYTE
    file_number, _, number = name.partition("-")
    return (int(file_number) << 32) + int(number)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
