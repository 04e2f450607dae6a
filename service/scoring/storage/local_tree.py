"""Local files. Symbolic links to files are read, links to folders below the root are not followed."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs

from service.scoring.job import ScoringError
from service.scoring.storage.location import Location
from service.scoring.storage.pattern import LEDGER_FOLDER, Pattern
from service.scoring.storage.tree import FileStatus


class LocalTree:
    def status(self, path: str) -> FileStatus | None:
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise ScoringError(f"--input {path}: not a regular file")
        return _status(status)

    def walk(self, folder: str, pattern: Pattern, *, excluded: Location | None) -> Iterator[tuple[str, FileStatus]]:
        """Lists one folder per level at a time."""
        if Path(folder).is_dir():
            output = Path(excluded.path).resolve() if excluded and excluded.kind == "file" else None
            yield from _walk(Path(folder), "", pattern, pattern.start, output)

    def read_small(self, path: str, max_bytes: int) -> bytes | None:
        with Path(path).open("rb") as file:
            content = file.read(max_bytes + 1)
        return content if len(content) <= max_bytes else None

    def file_system(self) -> tuple[pafs.FileSystem, str]:
        return pafs.LocalFileSystem(), ""


def _walk(
    folder: Path, prefix: str, pattern: Pattern, state: frozenset[int], excluded: Path | None
) -> Iterator[tuple[str, FileStatus]]:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    if prefix and any(entry.name == LEDGER_FOLDER for entry in entries):
        return
    for entry in entries:
        reached = pattern.advance(state, entry.name)
        if not reached:
            continue
        if entry.is_dir(follow_symlinks=False):
            path = Path(entry.path)
            if path.resolve() != excluded:
                yield from _walk(path, f"{prefix}{entry.name}/", pattern, reached, excluded)
        elif pattern.accepts(reached) and entry.is_file():
            yield f"{prefix}{entry.name}", _status(entry.stat())


def _status(status: os.stat_result) -> FileStatus:
    fingerprint = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
    return FileStatus(size=status.st_size, fingerprint=fingerprint)
