"""A hidden folder among the bundles, whose content is checked before it appears there.

Invariant: a bundle appears as a whole, in one step, and only if every check of it passed; what fails leaves nothing. A
model has one candidate, beside a serving version that is another one.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from service.bundle import MAX_DATA_BYTES, current_version, first_validation_error, open_bundle
from service.errors import BundleError
from service.fetch.source import ConflictError, FetchError, Source
from service.manifest import MANIFEST, Manifest

MAX_FILE_BYTES = MAX_DATA_BYTES
READABLE = 0o755


class Staging:
    """Files that are not bundles yet; leaving the block removes what was not placed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Name, version and where it is from; in the staging or among the bundles already.
        self._checked: list[tuple[str, str, Source]] = []

    def __enter__(self) -> "Staging":
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=".fetch-", dir=self._root))
        except OSError as error:
            raise FetchError(f"{self._root}: {error.strerror}: name a folder that can be written") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def holds(self, source: Source, name: str, version: str) -> bool:
        """Return whether the bundle of the source is among the bundles already, and whole; if so, it is placed.

        Raises ConflictError for the second version to serve, or the second candidate, of a model.
        """
        self._refuse_second(source, name, version)
        found = self._is_there(name, version, source.digest)
        if found:
            self._checked.append((name, version, source))
        return found

    def _refuse_second(self, source: Source, name: str, version: str) -> None:
        for found, first, other in self._checked:
            if found == name and first != version and other.pointer == source.pointer:
                kind = "candidates" if source.pointer == "candidate" else "versions to serve"
                both = f"{first} of {other} and {version} of {source}"
                raise ConflictError(f"{name} has two {kind}, {both}: name one of them")

    def _is_there(self, name: str, version: str, digest: str) -> bool:
        folder = self._root / name / version
        if not folder.exists():
            return False
        try:
            open_bundle(folder)
            found = _sha256(folder / MANIFEST)
        except (BundleError, OSError) as error:
            raise FetchError(f"{folder} is there and fails ({error}): remove it, then fetch again") from error
        if found != digest:
            raise FetchError(f"{folder / MANIFEST}: expected sha256 {digest}, found {found}: remove the folder")
        return True

    def add(self, source: Source, folder: Path) -> tuple[str, str]:
        """Check the bundle in this folder of the staging, which gets its name and version; return both."""
        try:
            manifest = parse_manifest(source, (folder / MANIFEST).read_bytes())
            self._refuse_second(source, manifest.name, manifest.version)
            place = self._place(manifest.name, manifest.version)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.parent.chmod(READABLE)
            folder.rename(place)
            place.chmod(READABLE)
            open_bundle(place)
        except BundleError as error:
            raise FetchError(f"{source}: {error}") from error
        except OSError as error:
            raise FetchError(f"{source}: {error.filename}: {error.strerror}") from error
        self._checked.append((manifest.name, manifest.version, source))
        return manifest.name, manifest.version

    def place_all(self) -> None:
        """Move every checked bundle among the bundles and name it in `current` or `candidate`."""
        fetched = {name for name, _, source in self._checked if source.pointer == "current"}
        for name in {name for name, _, _ in self._checked} - fetched:
            if not (self._root / name / "current").exists():
                raise FetchError(f"{self._root / name}: a candidate needs a version that serves; fetch that one, too")
        # The version that serves appears before its candidate.
        for name, version, source in sorted(self._checked, key=lambda each: each[2].pointer == "candidate"):
            pointer = source.pointer
            staged, target = self._place(name, version), self._root / name / version
            try:
                if staged.exists() and not self._is_there(name, version, _sha256(staged / MANIFEST)):
                    target.parent.mkdir(exist_ok=True)
                    staged.rename(target)
                temporary = self.folder / pointer
                temporary.write_text(f"{version}\n")
                temporary.replace(target.parent / pointer)
                _drop_equal_candidate(target.parent)
            except OSError as error:
                raise FetchError(f"{target}: {error.strerror}") from error

    def _place(self, name: str, version: str) -> Path:
        return self.folder / "checked" / name / version


def parse_manifest(source: Source, content: bytes) -> Manifest:
    """Return the manifest of a bundle; raises FetchError that names the field."""
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        reason = first_validation_error(error)
        raise FetchError(
            f"{source}: {MANIFEST} is no manifest that this version of the service reads: {reason}"
        ) from error


def _drop_equal_candidate(folder: Path) -> None:
    """Remove `candidate` if it names the version that serves."""
    with suppress(BundleError):  # there is none, or the service reports it
        if current_version(folder, "candidate") == current_version(folder):
            (folder / "candidate").unlink()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_checked(path: Path, parts: Iterable[bytes], *, label: str, digest: str, num_bytes: int | None = None) -> None:
    """Write a file whose hash must be this one; raises FetchError that names it, what was expected and what came."""
    max_bytes = MAX_FILE_BYTES if num_bytes is None else num_bytes
    found, written = hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            for part in parts:
                written += len(part)
                if written > max_bytes:
                    raise FetchError(f"{label}: expected {max_bytes} bytes, found more")
                found.update(part)
                file.write(part)
            file.flush()
            with suppress(OSError):  # a file system without it
                os.fsync(file.fileno())
    except FileNotFoundError as error:
        raise FetchError(f"{label}: there is no such file") from error
    except OSError as error:
        raise FetchError(f"{label}: {error.strerror or error}") from error
    if num_bytes is not None and written != num_bytes:
        raise FetchError(f"{label}: expected {num_bytes} bytes, found {written}")
    if found.hexdigest() != digest:
        raise FetchError(f"{label}: expected sha256 {digest}, found {found.hexdigest()}")
