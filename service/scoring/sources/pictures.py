"""Pictures as files: folders, and tar archives of them, plain or compressed. A row a picture.

Columns: `name`, its path in the folder or archive, and `image`, its bytes as they are. Other files are passed over.
Names are only ever names: nothing is unpacked, no link in an archive is followed, no folder that is a link is entered.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, cast

from xxhash import xxh3_128

from service.scoring.files import InputFile, is_picture, walk
from service.scoring.rows import CHUNK_BYTES, CHUNK_ROWS, MAX_ROW_BYTES, SHARD_BYTES, Rows, Span, Want
from service.scoring.sources.stream import Stream

COLUMNS = ("name", "image")
TOO_LARGE = f"expected a picture of at most {MAX_ROW_BYTES} bytes, got a larger file"
MAX_NAMES = 4096


@dataclass(frozen=True, kw_only=True)
class _Picture:
    name: str
    content: bytes | None  # None: too large to be one
    start: int = 0  # of its header in an archive

    @property
    def size(self) -> int:
        return len(self.name) + len(self.content or b"")


class FolderSource:
    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG002
        return COLUMNS

    def spans(self, file: InputFile, want: Want, *, shard_rows: int, last: bool) -> Iterator[Span]:  # noqa: ARG002
        root = Path(file.uri)
        names = (path.relative_to(root).as_posix() for path in walk(root) if is_picture(path.name))
        yield from _spans((_read(root, name) for name in names), min(shard_rows, MAX_NAMES), named=True)

    def open(self, file: InputFile, want: Want) -> "FolderReader":  # noqa: ARG002
        return FolderReader(file)


class FolderReader:
    def __init__(self, file: InputFile) -> None:
        self._root = Path(file.uri)

    def read(self, span: Span) -> Iterator[Rows]:
        yield from _chunks((_read(self._root, name) for name in span.names), span)

    def close(self) -> None:
        """Nothing stays open."""


class TarSource:
    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG002
        return COLUMNS

    def spans(self, file: InputFile, want: Want, *, shard_rows: int, last: bool) -> Iterator[Span]:  # noqa: ARG002
        stream = Stream(file)
        yield from _spans(_members(stream, 0), shard_rows, named=False)
        stream.close()

    def open(self, file: InputFile, want: Want) -> "TarReader":  # noqa: ARG002
        return TarReader(file)


class TarReader:
    def __init__(self, file: InputFile) -> None:
        self._stream = Stream(file)

    def read(self, span: Span) -> Iterator[Rows]:
        self._stream.seek(span.start)
        yield from _chunks(islice(_members(self._stream, span.start), span.rows), span)

    def close(self) -> None:
        self._stream.close()


def _members(stream: Stream, start: int) -> Iterator[_Picture]:
    # In a compressed stream there is no way back, so nothing is read ahead of what is asked for.
    bufsize = tarfile.RECORDSIZE if stream.file.compression is None else tarfile.BLOCKSIZE
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", bufsize=bufsize, errorlevel=2) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else it remembers every one
            if not member.isreg() or not is_picture(member.name):
                continue
            opened = archive.extractfile(member) if member.size <= MAX_ROW_BYTES else None
            content = opened.read() if opened else None
            if content is not None and len(content) != member.size:
                raise EOFError(f"the archive ends inside {member.name}")
            yield _Picture(name=member.name, content=content, start=start + member.offset)


def _read(root: Path, name: str) -> _Picture:
    with (root / name).open("rb") as file:
        content = file.read(MAX_ROW_BYTES + 1)
    return _Picture(name=name, content=content if len(content) <= MAX_ROW_BYTES else None)


def _spans(pictures: Iterator[_Picture], shard_rows: int, *, named: bool) -> Iterator[Span]:
    first = 0
    held: list[str] = []
    start = size = 0
    digest = xxh3_128()

    def span() -> Span:
        names = tuple(held) if named else ()
        return Span(first_row=first, rows=len(held), start=start, stop=start, names=names, digest=digest.hexdigest())

    for picture in pictures:
        if not held:
            start = picture.start
        held.append(picture.name)
        content = picture.content if picture.content is not None else b""
        digest.update(f"{len(picture.name)}:{len(content)}:{picture.name}".encode("utf-8", "surrogateescape") + content)
        size += picture.size
        if len(held) == shard_rows or size >= SHARD_BYTES:
            yield span()
            first, held, size, digest = first + len(held), [], 0, xxh3_128()
    if held:
        yield span()


def _chunks(pictures: Iterator[_Picture], span: Span) -> Iterator[Rows]:
    number, held, size = span.first_row, list[_Picture](), 0
    for picture in pictures:
        held.append(picture)
        size += picture.size
        if len(held) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield _rows(number, held)
            number, held, size = number + len(held), [], 0
    if held:
        yield _rows(number, held)


def _rows(number: int, held: list[_Picture]) -> Rows:
    names = [picture.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for picture in held]
    return Rows(
        numbers=range(number, number + len(held)),
        columns={"name": names, "image": [picture.content for picture in held]},
        faults={i: TOO_LARGE for i, picture in enumerate(held) if picture.content is None},
    )
