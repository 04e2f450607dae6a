"""Reads one object at any position, and gives pyarrow a file system for that.

Blocks are aligned, and the last ones stay in memory, so reading several columns of a Parquet file in turn does not
fetch a byte twice. Invariant: all bytes of an open file are of one version; a changed object is an error.
"""

import contextlib
import io
from collections import OrderedDict
from typing import Any, cast

import pyarrow as pa
import pyarrow.fs as pafs

from service.scoring.storage.location import Location
from service.scoring.storage.object_store import open_store, store_errors

BLOCK_BYTES = 1 << 20
MAX_BLOCKS = 64
# Blocks of one request while a file is read from front to back.
SEQUENTIAL_BLOCKS = 8


class ObjectFile(io.RawIOBase):
    def __init__(self, location: Location) -> None:
        super().__init__()
        self._store, self._path, self._place = open_store(location), location.path, str(location)
        with store_errors(self._place):
            meta = self._store.head(self._path)
        self.size: int = meta["size"]
        self._condition = {"if_match": meta["e_tag"]} if meta["e_tag"] else {}
        self._blocks: OrderedDict[int, memoryview] = OrderedDict()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self.size if size < 0 else min(self._position + size, self.size)
        parts = []
        while self._position < stop:
            number, begin = divmod(self._position, BLOCK_BYTES)
            part = self._block(number, stop)[begin : begin + stop - self._position]
            parts.append(part)
            self._position += len(part)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _block(self, number: int, stop: int) -> memoryview:
        """A block; one request also fetches the blocks up to `stop`, and more while reading goes forward."""
        if number not in self._blocks:
            count = -(-stop // BLOCK_BYTES) - number
            if number - 1 in self._blocks:
                count = max(count, SEQUENTIAL_BLOCKS)
            self._fetch(number, min(count, MAX_BLOCKS // 2))
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, first: int, count: int) -> None:
        start, end = first * BLOCK_BYTES, min((first + count) * BLOCK_BYTES, self.size)
        with store_errors(self._place):
            content = self._store.get(self._path, options={"range": (start, end), **self._condition}).bytes()
        if len(content) != end - start:
            raise EOFError(f"{self._place}: expected bytes {start} to {end}, got {len(content)} bytes")
        view = memoryview(content)
        for begin in range(0, end - start, BLOCK_BYTES):
            number = first + begin // BLOCK_BYTES
            self._blocks[number] = view[begin : begin + BLOCK_BYTES]
            self._blocks.move_to_end(number)
        while len(self._blocks) > MAX_BLOCKS:
            self._blocks.popitem(last=False)


class ObjectFileSystem(pafs.FileSystemHandler):
    """The objects of a bucket for pyarrow, to read. Paths are keys."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectFileSystem) and self._location == other._location

    def __hash__(self) -> int:
        return hash(self._location)

    def get_type_name(self) -> str:
        return "object-store"

    def normalize_path(self, path: str) -> str:
        return path

    def open_input_file(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(cast(Any, ObjectFile(self._location.with_path(path))), mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        with store_errors(str(self._location.with_path(selector.base_dir))):
            if selector.recursive:
                objects = [item for page in open_store(self._location).list(selector.base_dir) for item in page]
                return [pafs.FileInfo(item["path"], pafs.FileType.File, size=item["size"]) for item in objects]
            listed = open_store(self._location).list_with_delimiter(selector.base_dir)
        files = [pafs.FileInfo(item["path"], pafs.FileType.File, size=item["size"]) for item in listed["objects"]]
        return files + [pafs.FileInfo(path, pafs.FileType.Directory) for path in listed["common_prefixes"]]

    def _info(self, path: str) -> pafs.FileInfo:
        store = open_store(self._location)
        with store_errors(str(self._location.with_path(path))):
            with contextlib.suppress(FileNotFoundError):
                return pafs.FileInfo(path, pafs.FileType.File, size=store.head(path)["size"])
            is_folder = any(store.list(path, chunk_size=1))
        return pafs.FileInfo(path, pafs.FileType.Directory if is_folder else pafs.FileType.NotFound)

    def _read_only(self, *_: object, **__: object) -> Any:
        raise NotImplementedError(f"{self._location}: this file system is for reading")

    copy_file = create_dir = delete_dir = delete_dir_contents = delete_file = delete_root_dir_contents = _read_only
    move = open_append_stream = open_output_stream = _read_only
