"""The interface of a tree of files, local or remote."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from service.scoring.storage.location import Location
from service.scoring.storage.pattern import Pattern


@dataclass(frozen=True, kw_only=True)
class FileStatus:
    """`fingerprint` changes when the file is written."""

    size: int
    fingerprint: str


class Tree(Protocol):
    """Paths are those of `Location.path`. Every method raises OSError if the store cannot be reached."""

    def status(self, path: str) -> FileStatus | None:
        """None if there is no file. Raises ScoringError if it is something that cannot be read as a file."""
        ...

    def walk(self, folder: str, pattern: Pattern, *, excluded: Location | None) -> Iterator[tuple[str, FileStatus]]:
        """Yield the paths below the folder, relative to it, that the pattern names, in the order of their names.

        Outputs of scoring jobs are left out, and so is the place `excluded`.
        """
        ...

    def read_small(self, path: str, max_bytes: int) -> bytes | None:
        """The content of a file; None if it has more bytes."""
        ...

    def file_system(self) -> tuple[Any, str]:
        """The `pyarrow.fs.FileSystem`, and what goes before a path in it."""
        ...
