"""A data set on disk: a folder, an archive or one file, seen as named contents.

Every content that is handed out is hashed first, so a model's card can name exactly what it was trained on. Archives
are read in memory and never unpacked to disk: a hostile member name can reach no file.
"""

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


class Source:
    """Names are relative to the folder or archive, with `/`; a name's `.gz` is left out and its content unpacked."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError when there is nothing at `path` or the archive is broken."""
        self.path = path
        self.sha256: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}
        self._files: dict[str, Path] = {}
        if path.is_dir():
            self._files = {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()}
        elif not path.is_file():
            raise ValueError(f"{path}: expected a folder or a file, found nothing")
        elif path.name.endswith(ARCHIVES):
            self.sha256[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            self._contents = dict(_members(path))
        else:
            self._files = {path.name: path}
        self.names = sorted(name.removesuffix(".gz") for name in (*self._files, *self._contents))

    def find(self, *names: str) -> str | None:
        """The first of `names` that is here, at the top or in any folder below it."""
        for wanted in names:
            for name in self.names:
                if name == wanted or name.endswith("/" + wanted):
                    return name
        return None

    def need(self, *names: str) -> str:
        """As `find`; raises ValueError that says what was expected and what is there."""
        found = self.find(*names)
        if found is None:
            there = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "") or "nothing"
            raise ValueError(f"{self.path}: expected {' or '.join(names)} (or the same with .gz), found {there}")
        return found

    def read(self, name: str) -> bytes:
        stored = name if name in self._files or name in self._contents else name + ".gz"
        if stored in self._contents:
            content = self._contents[stored]
        else:
            content = self._files[stored].read_bytes()
            self.sha256[stored] = hashlib.sha256(content).hexdigest()
        if not stored.endswith(".gz"):
            return content
        try:
            return gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.where(name)}: not a whole gzip file: {error}") from error

    def text(self, name: str) -> str:
        content = self.read(name)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise ValueError(f"{self.where(name)}, line {line}: expected UTF-8 text, found {error.reason}") from error

    def where(self, name: str) -> str:
        """How messages name a content."""
        return str(self.path) if self.path.name.removesuffix(".gz") == name else f"{self.path}/{name}"


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if path.name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        yield info.filename, archive.read(info)
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    handle = archive.extractfile(member) if member.isfile() else None
                    if handle is not None:
                        yield member.name, handle.read()
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole archive: {error}") from error
