"""A data set on disk (a folder, an archive or one file) as named contents.

Every file that is read is hashed, so a model's card names exactly the data it was trained on. Archives are read in
memory and never unpacked to disk, so a hostile member name cannot overwrite a file.
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
    """Named contents; names are relative paths with `/`, without `.gz`: gzip files are decompressed."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError when `path` does not exist or is a damaged archive."""
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

    @property
    def name(self) -> str:
        """The name of the folder or file, without the suffix of an archive: `fashion-mnist`, `input.txt`."""
        name = self.path.absolute().name
        suffix = next((suffix for suffix in (*ARCHIVES, ".gz") if name.endswith(suffix)), "")
        return name.removesuffix(suffix)

    def first_match(self, *file_names: str) -> str | None:
        """The name of the first of `file_names` that exists, at the top or in any folder below; None without one."""
        for file_name in file_names:
            for name in self.names:
                if name == file_name or name.endswith("/" + file_name):
                    return name
        return None

    def require(self, *file_names: str) -> str:
        """As `first_match`, but raises ValueError when none of `file_names` exists."""
        name = self.first_match(*file_names)
        if name is None:
            found = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "") or "nothing"
            raise ValueError(f"{self.path}: expected {' or '.join(file_names)} (or the same with .gz), found {found}")
        return name

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
            raise ValueError(f"{self.location(name)}: truncated or damaged gzip file: {error}") from error

    def read_text(self, name: str) -> str:
        content = self.read(name)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise ValueError(
                f"{self.location(name)}, line {line}: expected UTF-8 text, found {error.reason}"
            ) from error

    def location(self, name: str) -> str:
        """The path of a content, as shown in messages."""
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
        raise ValueError(f"{path}: truncated or damaged archive: {error}") from error
