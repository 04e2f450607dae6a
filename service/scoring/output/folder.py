"""The interface of an output folder: what the ledger needs from a file system or an object store.

Names are paths below the folder, with slashes. Every method may raise OSError.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

LEDGER = "_ledger"
PROGRESS_FOLDER = f"{LEDGER}/progress"
# The folders of what shards publish.
PARTS = ("predictions", "rejects", "errors")


class OutputFolder(Protocol):
    def prepare(self) -> None:
        """Make the folder ready for a new job. Raises ScoringError if it holds other files or cannot keep promises."""
        ...

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError if there is no such file."""
        ...

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The content of each file, in order; None for one that is missing."""
        ...

    def preload(self, prefix: str) -> None:
        """Fetch the small files below a folder; until the next call `read`, `read_all` and `sizes` may answer so."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless it exists; whether it has this content now. It survives a power cut."""
        ...

    def write(self, name: str, content: bytes, *, sync: bool = False) -> None:
        """Replace a file as a whole; with `sync` its bytes survive a power cut before it becomes visible."""
        ...

    def commit(self, name: str, content: bytes) -> None:
        """Write the record that commits a shard, after its parts."""
        ...

    def publish(self, parts: Mapping[str, Path]) -> None:
        """Make files of `work_path` visible under their names, each as a whole; older files are replaced."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file; one that is missing is no error."""
        ...

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The files whose names start with `prefix`, with their sizes in bytes."""
        ...

    def sha256(self, name: str) -> str:
        """Raises FileNotFoundError if there is no such file."""
        ...

    def is_intact(self, name: str, *, size: int, sha256: str, verify: bool) -> bool:
        """Whether a file has the bytes that were published.

        A file system may have lost them in a power cut, so they are always read there. A store is asked for the size,
        and with `verify` for the bytes.
        """
        ...

    def work_path(self, name: str) -> Path:
        """A path for a file that only the process with the shard's lock writes, and that no process reads."""
        ...

    def clear_work(self) -> None:
        """Remove what unfinished shards have left, and the progress of processes."""
        ...

    def try_lock(self, name: str) -> bool:
        """Lock a shard, or `finish`; False if another process holds the lock. It ends with the process."""
        ...

    def unlock(self, name: str) -> None: ...

    def sync(self) -> None:
        """Wait until every file survives a power cut."""
        ...

    def close(self) -> None: ...
