"""Reads a file from any position, decompressed, as bytes or as lines.

Positions count decompressed bytes, of UTF-8 if the file has another encoding. Seeking forward in a compressed or
encoded file reads up to the position; seeking back opens the file again. A line longer than MAX_ROW_BYTES is skipped
without being held in memory, and marked.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128

from service.scoring.input.files import InputFile, file_system
from service.scoring.input.rows import MAX_ROW_BYTES, SHARD_BYTES, ReadSpec, Span
from service.scoring.sources.xz import XzStream

BLOCK_BYTES = 1 << 20


class Stream:
    """An open file; `position` is that of the next byte. Text in an `encoding` is read as UTF-8."""

    def __init__(self, file: InputFile, encoding: str | None = None) -> None:
        self.file = file
        self._encoding = encoding
        self._system, self._path = file_system(file.uri)
        self._raw: Any = None
        self.position = 0

    def seek(self, position: int) -> None:
        if self._raw is None or position < self.position:
            self._open()
        if position != self.position and self.file.compression is None and self._encoding is None:
            self._raw.seek(position)
            self.position = position
        while self.position < position:
            if not self.read(min(BLOCK_BYTES, position - self.position)):
                raise EOFError(f"ends at byte {self.position}, expected at least {position}")

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end of the file."""
        if self._raw is None:
            self._open()
        parts, remaining = [], size
        while remaining and (part := self._raw.read(remaining)):
            parts.append(part)
            remaining -= len(part)
        self.position += size - remaining
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_exactly(self, size: int) -> bytes:
        content = self.read(size)
        if len(content) != size:
            raise EOFError(f"ends at byte {self.position}, {size - len(content)} bytes too early")
        return content

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def _open(self) -> None:
        self.close()
        if self.file.compression is None:
            self._raw = self._system.open_input_file(self._path)
        else:
            compressed = self._system.open_input_stream(self._path, compression=None)
            if self.file.compression == "xz":  # which Arrow does not know
                self._raw = XzStream(compressed)
            else:
                self._raw = pa.CompressedInputStream(compressed, self.file.compression)
        if self._encoding is not None:
            self._raw = _Transcoder(self._raw, self._encoding)
        self.position = 0


class _Transcoder:
    """Reads text of any encoding as UTF-8. What cannot be decoded becomes the byte 0xff, which is not UTF-8."""

    def __init__(self, raw: Any, encoding: str) -> None:
        self._raw, self._rest, self._ended = raw, b"", False
        self._decoder = codecs.getincrementaldecoder(encoding)(UNDECODABLE)

    def read(self, size: int) -> bytes:
        while not self._rest and not self._ended:
            part = self._raw.read(BLOCK_BYTES)
            self._ended = not part
            self._rest = self._decoder.decode(part, final=self._ended).encode("utf-8", "surrogateescape")
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def close(self) -> None:
        self._raw.close()


UNDECODABLE = "ekiben-undecodable"
codecs.register_error(UNDECODABLE, lambda error: ("\udcff", error.end))  # type: ignore[attr-defined]


class StreamSource:
    """The base of the sources that read one stream."""

    def __init__(self, file: InputFile, spec: ReadSpec, *, encoding: str | None = None) -> None:
        self._stream, self._spec = Stream(file, encoding), spec

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True, kw_only=True)
class Block:
    """Whole lines (the last line of a file may lack its line end), or one line that is too long, without content."""

    content: bytes
    size: int


def blocks(stream: Stream, *, stop: int | None = None) -> Iterator[Block]:
    """Yield the lines from the position of the stream up to `stop` or the end of the file."""
    rest = b""
    while True:
        left = BLOCK_BYTES if stop is None else min(BLOCK_BYTES, stop - stream.position)
        part = stream.read(left) if left else b""
        if not part:
            if stop is not None and stream.position < stop:
                raise EOFError(f"ends at byte {stream.position}, expected at least {stop}")
            break
        end = part.rfind(b"\n") + 1
        if end:
            yield Block(content=rest + part[:end], size=len(rest) + end)
            rest = part[end:]
            continue
        rest += part
        if len(rest) > MAX_ROW_BYTES:
            size, rest = _skip_line(stream, len(rest), stop)
            yield Block(content=b"", size=size)
    if rest:
        yield Block(content=rest, size=len(rest))


def _skip_line(stream: Stream, size: int, stop: int | None) -> tuple[int, bytes]:
    """Read the rest of a long line; return the size of the line, and the bytes that were read after it."""
    while True:
        part = stream.read(BLOCK_BYTES if stop is None else min(BLOCK_BYTES, stop - stream.position))
        end = part.find(b"\n") + 1
        if end or not part:
            return size + end, part[end:]
        size += len(part)


def line_spans(stream: Stream, *, shard_rows: int) -> Iterator[Span]:
    """Cut a file into spans of `shard_rows` lines, or fewer if the lines are long; every line is a row."""
    first_row = start = rows = size = 0
    digest = xxh3_128()

    def span() -> Span:
        return Span(
            first_row=first_row,
            rows=rows,
            start=start,
            stop=start + size,
            first_line=first_row + 1,
            digest=digest.hexdigest(),
        )

    for block in blocks(stream):
        line_ends = np.flatnonzero(np.frombuffer(block.content, np.uint8) == ord("\n")) + 1
        if not len(line_ends) or line_ends[-1] != len(block.content):
            # The last line of the file without its line end, or a line that is too long.
            line_ends = np.append(line_ends, block.size)
        done = begin = 0
        while done < len(line_ends):
            count = min(len(line_ends) - done, shard_rows - rows)
            end = int(line_ends[done + count - 1])
            digest.update(block.content[begin:end] or (end - begin).to_bytes(8, "little"))
            rows, size, done, begin = rows + count, size + end - begin, done + count, end
            if rows == shard_rows or (done == len(line_ends) and size >= SHARD_BYTES):
                yield span()
                first_row, start, rows, size, digest = first_row + rows, start + size, 0, 0, xxh3_128()
    if rows:
        yield span()
