"""Objects of one bucket as a tree of files; a folder is a common start of keys. HTTP servers have single files only."""

from collections.abc import Iterator
from typing import Any

import pyarrow.fs as pafs

from service.scoring.job import ScoringError
from service.scoring.storage.location import Location
from service.scoring.storage.object_file import ObjectFileSystem
from service.scoring.storage.object_store import open_store, store_errors
from service.scoring.storage.pattern import LEDGER_FOLDER, Pattern
from service.scoring.storage.tree import FileStatus


class ObjectTree:
    def __init__(self, location: Location) -> None:
        self._location, self._store = location, open_store(location)

    def status(self, path: str) -> FileStatus | None:
        if not path:
            return None
        try:
            with store_errors(str(self._location.with_path(path))):
                return object_status(self._store.head(path))
        except FileNotFoundError:
            return None

    def walk(self, folder: str, pattern: Pattern, *, excluded: Location | None) -> Iterator[tuple[str, FileStatus]]:
        if self._location.kind == "http":
            return
        found: list[tuple[list[str], FileStatus]] = []
        with store_errors(str(self._location.with_path(folder))):
            self._collect(folder, folder, pattern, pattern.start, found)
        found.sort(key=lambda item: item[0])
        for parts, status in found:
            name = "/".join(parts)
            path = f"{folder}/{name}" if folder else name
            if excluded is None or not excluded.holds(self._location.with_path(path)):
                yield name, status

    def read_small(self, path: str, max_bytes: int) -> bytes | None:
        with store_errors(str(self._location.with_path(path))):
            result = self._store.get(path)
            return None if result.meta["size"] > max_bytes else bytes(result.bytes())

    def file_system(self) -> tuple[pafs.FileSystem, str]:
        return pafs.PyFileSystem(ObjectFileSystem(self._location)), ""

    def _collect(
        self,
        root: str,
        folder: str,
        pattern: Pattern,
        state: frozenset[int],
        found: list[tuple[list[str], FileStatus]],
    ) -> None:
        """Add what matches below the folder: one listing if any depth can match, else one for each level."""
        if pattern.is_deep(state):
            objects = [item for page in self._store.list(folder or None, chunk_size=1000) for item in page]
            folders: list[str] = []
        else:
            result = self._store.list_with_delimiter(folder or None)
            objects, folders = list(result["objects"]), list(result["common_prefixes"])
            if folder != root and any(_relative_parts(path, folder) == [LEDGER_FOLDER] for path in folders):
                return
        relative = [(_relative_parts(item["path"], root), item) for item in objects]
        outputs = {_outside_ledger(parts) for parts, _ in relative if LEDGER_FOLDER in parts[1:]}
        parents = {tuple(parts[:i]) for parts, _ in relative for i in range(1, len(parts))}
        for parts, item in relative:
            # An empty object that marks a folder is no file.
            if not parts or (not item["size"] and tuple(parts) in parents):
                continue
            reached = pattern.start
            for name in parts:
                reached = pattern.advance(reached, name)
            is_output = any(tuple(parts[:i]) in outputs for i in range(1, len(parts)))
            if pattern.accepts(reached) and not is_output:
                found.append((parts, object_status(item)))
        for path in folders:
            [name] = _relative_parts(path, folder)
            if reached := pattern.advance(state, name):
                self._collect(root, path, pattern, reached, found)


class HadoopTree:
    """HDFS, by pyarrow and the Hadoop client of the machine; for input only."""

    def __init__(self, location: Location) -> None:
        self._location = location
        try:
            options = "&".join(f"{name}={value}" for name, value in location.options)
            uri = f"{location.scheme}://{location.root}/" + (f"?{options}" if options else "")
            self._system, _ = pafs.FileSystem.from_uri(uri)
        except (OSError, ValueError) as error:
            raise ScoringError(f"{location}: {error}") from error

    def status(self, path: str) -> FileStatus | None:
        info = self._system.get_file_info(f"/{path}")
        return _hadoop_status(info) if info.is_file else None

    def walk(
        self,
        folder: str,
        pattern: Pattern,
        *,
        excluded: Location | None,  # noqa: ARG002 - HDFS is for input only
    ) -> Iterator[tuple[str, FileStatus]]:
        selector = pafs.FileSelector(f"/{folder}", recursive=True, allow_not_found=True)
        found = [(_relative_parts(info.path.strip("/"), folder), info) for info in self._system.get_file_info(selector)]
        outputs = {_outside_ledger(parts) for parts, _ in found if LEDGER_FOLDER in parts[1:]}
        for parts, info in sorted(found, key=lambda item: item[0]):
            reached = pattern.start
            for name in parts:
                reached = pattern.advance(reached, name)
            is_output = any(tuple(parts[:i]) in outputs for i in range(1, len(parts)))
            if info.is_file and pattern.accepts(reached) and not is_output:
                yield "/".join(parts), _hadoop_status(info)

    def read_small(self, path: str, max_bytes: int) -> bytes | None:
        with self._system.open_input_stream(f"/{path}") as file:
            content: bytes = file.read(max_bytes + 1)
        return content if len(content) <= max_bytes else None

    def file_system(self) -> tuple[pafs.FileSystem, str]:
        return self._system, "/"


def object_status(item: Any) -> FileStatus:
    """The status of an `obstore.ObjectMeta`; its fingerprint is the ETag if the store has one."""
    tag = item["e_tag"] or item["version"] or item["last_modified"].isoformat()
    return FileStatus(size=item["size"], fingerprint=f"{item['size']}-{tag.strip(chr(34))}")


def _hadoop_status(info: pafs.FileInfo) -> FileStatus:
    return FileStatus(size=info.size, fingerprint=f"{info.size}-{info.mtime_ns}")


def _relative_parts(path: str, folder: str) -> list[str]:
    """The parts of a path below a folder."""
    rest = path[len(folder) :].strip("/") if folder else path
    return rest.split("/") if rest else []


def _outside_ledger(parts: list[str]) -> tuple[str, ...]:
    """The output folder that a ledger lies in."""
    return tuple(parts[: parts.index(LEDGER_FOLDER, 1)])
