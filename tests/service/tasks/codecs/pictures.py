"""Whole and broken PNG and JPEG files."""

import itertools
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as Pillow

PNG_START = b"\x89PNG\r\n\x1a\n"


def file_of(image: Pillow.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def segment(kind: int, body: bytes) -> bytes:
    """Return one segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body


def png_of(
    rows: list[bytes], *, width: int, bits: int = 8, colour: int = 0, before: bytes = b"", interlace: int = 0
) -> bytes:
    """Return a PNG with these packed rows, each without a filter, and the chunks `before` its data."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, interlace)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return PNG_START + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def photo(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Pillow.Image:
    """Return a smooth picture with some noise."""
    rng = np.random.default_rng(seed)
    coarse = Pillow.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize(
        (width, height), Pillow.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, np.int16) + rng.integers(-9, 10, (height, width, 3), np.int16)
    return Pillow.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def jpegs() -> Iterator[bytes]:
    """Yield whole JPEGs of all kinds that Pillow writes."""
    restarts: list[dict[str, int]] = [{}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}]
    sizes = ((28, 28), (1, 1), (37, 61))
    kinds = itertools.product(sizes, ("L", "RGB", "CMYK"), (False, True), (False, True), (0, 2), restarts)
    for (height, width), mode, progressive, optimize, subsampling, restart in kinds:
        options = {"progressive": progressive, "optimize": optimize, "subsampling": subsampling, **restart}
        yield file_of(photo(height, width, mode), "JPEG", quality=85, **options)


def exif(orientation: int, *, order: str = ">", kind: int = 3, tags_before: int = 0) -> bytes:
    """Return EXIF data with an orientation, without the prefix that a JPEG needs."""
    value = struct.pack(order + "HH", orientation, 0) if kind == 3 else struct.pack(order + "I", orientation)
    entries = [struct.pack(order + "HHI4s", 0x0100 + i, 4, 1, bytes(4)) for i in range(tags_before)]
    entries.append(struct.pack(order + "HHI4s", 0x0112, kind, 1, value))
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "IH", 8, len(entries))
    return head + b"".join(entries) + bytes(4)
