"""Image files: folders, and tar archives, compressed or not. A row is an image.

Columns: `name`, the path in the folder or archive, and `image`, the bytes of the file. Other files are passed over and
counted: hidden names and those that begin with "_" too, such as macOS adds to an archive. Names are only names: nothing
is unpacked, and no link is followed.
"""

import tarfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
from xxhash import xxh3_128

from service.scoring.input.files import InputFile, list_images, read_image
from service.scoring.input.passed_over import other_kind
from service.scoring.input.rows import MAX_ROW_BYTES, SHARD_BYTES, ReadSpec, Rows, Span, chunked
from service.scoring.job import TextOptions
from service.scoring.sources.stream import Stream, StreamSource
from service.scoring.sources.tar import open_archive

TOO_LARGE = f"expected an image of at most {MAX_ROW_BYTES} bytes, got a larger file"
# The shard of a folder lists the names of its files.
MAX_NAMES = 4096
# Images of a remote folder that are read at a time.
READERS = 16


@dataclass(frozen=True, kw_only=True)
class _ImageFile:
    """`content` is None if the file is too large. `start` is the position of its header in an archive."""

    name: str
    content: bytes | None
    start: int = 0

    @property
    def size(self) -> int:
        return len(self.name) + len(self.content or b"")


class FolderSource:
    def __init__(self, file: InputFile, spec: ReadSpec) -> None:  # noqa: ARG002
        self._file = file

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG004
        return pa.schema([("name", pa.string()), ("image", pa.binary())])

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        return _spans(_read_all(self._file, list_images(self._file)), min(shard_rows, MAX_NAMES), with_names=True)

    def read(self, span: Span) -> Iterator[Rows]:
        return _chunks(_read_all(self._file, span.names), span)

    def close(self) -> None:
        """No file stays open."""


class TarSource(StreamSource):
    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        super().__init__(file, spec)
        self.passed_over = Counter[str]()

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:
        return FolderSource.schema(file, text_options)

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        return _spans(_members(self._stream, 0, self.passed_over), shard_rows, with_names=False)

    def read(self, span: Span) -> Iterator[Rows]:
        self._stream.seek(span.start)
        return _chunks(islice(_members(self._stream, span.start, Counter()), span.rows), span)


def _members(stream: Stream, start: int, passed_over: Counter[str]) -> Iterator[_ImageFile]:
    """The images of an archive from the member at `start` on; counts the others by their suffix."""
    with open_archive(stream) as archive:
        for member in archive:
            # Otherwise tarfile keeps every member in memory.
            archive.members = []  # type: ignore[attr-defined]
            if not member.isdir() and (kind := _other_kind(member)):
                passed_over[kind] += 1
            if not member.isreg() or _other_kind(member):
                continue
            opened = archive.extractfile(member) if member.size <= MAX_ROW_BYTES else None
            content = opened.read() if opened else None
            if content is not None and len(content) != member.size:
                raise EOFError(f"the archive ends inside {member.name}")
            yield _ImageFile(name=member.name, content=content, start=start + member.offset)


def _other_kind(member: tarfile.TarInfo) -> str | None:
    """What the summary counts a member as that is no image; None for an image."""
    if not member.isreg():
        return "link or device"
    return other_kind(member.name)


def _read_all(file: InputFile, names: Iterable[str]) -> Iterator[_ImageFile]:
    """Read images in order; from a remote folder several at a time, because each is a request."""

    def read(name: str) -> _ImageFile:
        return _ImageFile(name=name, content=read_image(file, name, MAX_ROW_BYTES))

    if "://" not in file.uri:
        yield from map(read, names)
        return
    with ThreadPoolExecutor(READERS, thread_name_prefix="images") as pool:
        pending = deque[Future[_ImageFile]]()
        for name in names:
            pending.append(pool.submit(read, name))
            if len(pending) == READERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _spans(images: Iterator[_ImageFile], shard_rows: int, *, with_names: bool) -> Iterator[Span]:
    first_row = start = 0
    while True:
        names, size, digest = list[str](), 0, xxh3_128()
        for image in images:
            if not names:
                start = image.start
            names.append(image.name)
            content = image.content or b""
            digest.update(f"{len(image.name)}:{len(content)}:{image.name}".encode("utf-8", "surrogateescape") + content)
            size += image.size
            if len(names) == shard_rows or size >= SHARD_BYTES:
                break
        if not names:
            return
        listed = names if with_names else []
        rows, whole = len(names), digest.hexdigest()
        yield Span(first_row=first_row, rows=rows, start=start, stop=start, names=listed, digest=whole)
        first_row += rows


def _chunks(images: Iterator[_ImageFile], span: Span) -> Iterator[Rows]:
    number = span.first_row
    for buffered in chunked(images):
        names = [
            image.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for image in buffered
        ]
        yield Rows(
            numbers=range(number, number + len(buffered)),
            columns={"name": names, "image": [image.content for image in buffered]},
            faults={i: TOO_LARGE for i, image in enumerate(buffered) if image.content is None},
        )
        number += len(buffered)
