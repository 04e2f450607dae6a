"""Checks that a PNG is whole, and whether any of its pixels is transparent (PNG specification, third edition).

Invariant: a file passes only if each of its chunks is intact and its data inflates to exactly the rows of its header.
Pillow checks neither: it leaves missing rows black, and knows no transparent grey of fewer than 8 bits. Bytes behind
the end are not looked at.
"""

import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow

GREY, COLOUR, PALETTE = 0, 2, 3
CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, 4: 2, 6: 4}
# In addition to one per KiB of the file.
MAX_CHUNKS = 256
INFLATED_BYTES = 1 << 20
# The first row and column and the steps of each pass of an interlaced picture.
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
HEAD, CHECKSUM, HEADER = struct.Struct(">I4s"), struct.Struct(">I"), struct.Struct(">IIBBBBB")
TABLES = {b"IHDR", b"PLTE", b"tRNS"}


class PngFile(NamedTuple):
    """What a picture needs besides its pixels: bits of a channel, colour type, and the chunks PLTE and tRNS."""

    bits: int
    colour: int
    palette: bytes
    transparency: bytes | None

    def lowest_alpha(self, image: Pillow.Image) -> int:
        """Return 255 if no pixel is transparent by tRNS; raises ValueError for a pixel that its palette lacks."""
        if self.colour == PALETTE:
            indices = np.asarray(image)
            if int(indices.max()) >= len(self.palette) // 3:
                raise ValueError(f"it has {len(self.palette) // 3} colours and a pixel of colour {indices.max()}")
            alphas = np.frombuffer((self.transparency or b"").ljust(256, b"\xff"), np.uint8)
            return int(alphas[indices].min())
        if self.transparency is None:
            return 255
        limit = (1 << self.bits) - 1
        # Pillow scales channels of fewer than 8 bits.
        key = (np.frombuffer(self.transparency, ">u2") & limit) * (255 // limit)
        pixels = np.asarray(image.convert("L") if self.colour == GREY else image)
        return 0 if (pixels.reshape(-1, len(key)) == key).all(axis=1).any() else 255


def check_png(content: bytes) -> PngFile | None:
    """Raise ValueError with the reason if a decoder would have to guess a part of the picture.

    Returns None if no pixel can be transparent or lack a colour.
    """
    chunks, data = _read_chunks(content)
    if len(chunks.get(b"IHDR", b"")) != HEADER.size:
        raise ValueError("it has no header")
    width, height, bits, colour, compression, filtering, interlace = HEADER.unpack(chunks[b"IHDR"])
    if compression or filtering or interlace > 1 or colour not in CHANNELS:
        raise ValueError("its header names an unknown method")
    _check_data(data, _num_bytes(width, height, bits * CHANNELS[colour], interlace))
    if len(chunks) == 1 and colour != PALETTE:
        return None
    return _tables(chunks, bits, colour)


def _read_chunks(content: bytes) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Return the bodies of the chunks in TABLES by kind, and those of the data in order."""
    chunks: dict[bytes, bytes] = {}
    data: list[bytes] = []
    at, previous, size = 8, b"", len(content)
    for _ in range(MAX_CHUNKS + size // 1024):
        if at + 12 > size:
            raise ValueError("it ends before its end chunk")
        length, kind = HEAD.unpack_from(content, at)
        end = at + 8 + length
        if end + 4 > size:
            raise ValueError(f"its chunk {kind!r} is broken off")
        if CHECKSUM.unpack_from(content, end)[0] != zlib.crc32(content[at + 4 : end]):
            raise ValueError(f"the checksum of its chunk {kind!r} is wrong")
        if kind == b"IDAT":
            if data and previous != b"IDAT":
                raise ValueError("its data is not in one piece")
            data.append(content[at + 8 : end])
        elif kind == b"IEND":
            return chunks, data
        elif kind in TABLES:
            if kind in chunks or data or (kind == b"IHDR") != (previous == b""):
                raise ValueError(f"its chunk {kind!r} is out of order")
            chunks[kind] = content[at + 8 : end]
        elif kind[0] & 32 == 0:
            raise ValueError(f"its chunk {kind!r} is unknown and critical")
        at, previous = end + 4, kind
    raise ValueError("it has too many small chunks")


def _tables(chunks: dict[bytes, bytes], bits: int, colour: int) -> PngFile:
    palette, transparency = chunks.get(b"PLTE", b""), chunks.get(b"tRNS")
    if len(palette) % 3 or (colour == PALETTE and not 3 <= len(palette) <= 3 << bits):
        raise ValueError(f"its palette has {len(palette)} bytes")
    if transparency is not None:
        num_bytes = len(transparency)
        is_valid = num_bytes <= len(palette) // 3 if colour == PALETTE else num_bytes == 2 * CHANNELS[colour]
        if not is_valid or colour > PALETTE:
            raise ValueError(f"its transparency has {num_bytes} bytes")
    return PngFile(bits=bits, colour=colour, palette=palette, transparency=transparency)


def _num_bytes(width: int, height: int, bits: int, interlace: int) -> int:
    """Return how many bytes the rows take, each with one for its filter."""
    if not interlace:
        return height * (1 + (width * bits + 7) // 8)
    total = 0
    for top, left, down, right in PASSES:
        rows, columns = -(-(height - top) // down), -(-(width - left) // right)
        if rows > 0 and columns > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _check_data(data: list[bytes], num_bytes: int) -> None:
    """Inflate the data piece by piece, and count."""
    inflate, rest, found = zlib.decompressobj(), b"".join(data), 0
    # Room for one byte more shows data that is too long.
    size = min(num_bytes + 1, INFLATED_BYTES)
    while not inflate.eof and found <= num_bytes:
        inflated = inflate.decompress(rest, size)
        if not inflated and not inflate.eof:
            raise ValueError("its data is broken off")
        found, rest = found + len(inflated), inflate.unconsumed_tail
    if found != num_bytes:
        raise ValueError(f"its rows have {found} bytes or more, its header says {num_bytes}")
    if inflate.unused_data:
        raise ValueError("it has data after its last row")
