"""A PNG passes only whole, and its transparent pixels are seen at every depth."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from service.tasks.codecs.png_file import check_png
from tests.service.tasks.codecs.pictures import PNG_START, chunk, file_of, photo, png_of

GREY = file_of(photo(28, 28, "L"))
IDAT = GREY.index(b"IDAT") - 4
HEAD, DATA = GREY[:IDAT], GREY[IDAT + 8 : IDAT + 8 + int.from_bytes(GREY[IDAT : IDAT + 4])]
ROWS = zlib.decompress(DATA)
END = chunk(b"IEND", b"")
PLAIN = [bytes(range(8)) for _ in range(8)]


def with_data(data: bytes) -> bytes:
    return HEAD + chunk(b"IDAT", data) + END


def interlaced(height: int, width: int, passes: int = 7) -> bytes:
    """Return an interlaced grey PNG with the rows of its first passes."""
    pixels, rows = np.arange(height * width, dtype=np.uint8).reshape(height, width), b""
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    for top, left, down, right in steps[:passes]:
        part = pixels[top::down, left::right]
        rows += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    return PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + END


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (37, 5)])
def test_every_whole_file_passes(mode: str, size: tuple[int, int]) -> None:
    picture = Pillow.new("I;16", size) if mode == "I;16" else photo(*size).convert(mode)
    check_png(file_of(picture))
    check_png(file_of(picture) + b"bytes behind the end")


def test_data_in_pieces_other_chunks_and_large_files_pass() -> None:
    parts = b"".join(chunk(b"IDAT", DATA[i : i + 100]) for i in range(0, len(DATA), 100))
    check_png(HEAD + chunk(b"tEXt", b"a\0b") + parts + chunk(b"IDAT", b"") + chunk(b"tIME", bytes(7)) + END)
    check_png(file_of(Pillow.new("RGB", (2000, 1500))))
    check_png(file_of(photo(1100, 1000), compress_level=0))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (28, 28), (9, 5)])
def test_interlaced_files_pass_with_all_passes(size: tuple[int, int]) -> None:
    content = interlaced(*size)
    check_png(content)
    assert np.asarray(Pillow.open(BytesIO(content))).reshape(-1).tolist() == [i % 256 for i in range(size[0] * size[1])]
    with pytest.raises(ValueError, match="its rows have"):
        check_png(interlaced(*size, passes=0 if size == (1, 1) else 3 if size == (3, 2) else 6))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_data(zlib.compress(ROWS[: 8 * 29])), "its rows have 232 bytes or more, its header says 812"),
        (with_data(zlib.compress(ROWS[:-1])), "its rows have 811"),
        (with_data(zlib.compress(ROWS + b"\0")), "its rows have 813"),
        (with_data(zlib.compress(ROWS * 3000)), "its rows have 813"),
        (with_data(DATA[:-1]), "broken off"),
        (with_data(DATA[:-4]), "broken off"),
        (with_data(DATA[:200]), "broken off"),
        (with_data(b""), "broken off"),
        (with_data(DATA + b"more"), "data after its last row"),
        (with_data(DATA[:-1] + bytes([DATA[-1] ^ 1])), "incorrect data check"),
        (HEAD + chunk(b"IDAT", DATA)[:-1] + b"x" + END, "checksum of its chunk b'IDAT' is wrong"),
        (HEAD[:-1] + b"x" + GREY[IDAT:], "checksum of its chunk b'IHDR' is wrong"),
        (HEAD + chunk(b"tEXt", b"a\0b")[:-1] + b"x" + GREY[IDAT:], "checksum of its chunk b'tEXt' is wrong"),
        (GREY[:-12], "before its end chunk"),
        (GREY[:-5], "before its end chunk"),
        (HEAD + GREY[IDAT:-60], "broken off"),
        (HEAD + END, "broken off"),
        (PNG_START + chunk(b"IDAT", DATA) + END, "no header"),
        (PNG_START + chunk(b"tEXt", b"") + GREY[8:], "out of order"),
        (HEAD + HEAD[8:] + GREY[IDAT:], "out of order"),
        (HEAD + chunk(b"IDAT", DATA[:9]) + chunk(b"tEXt", b"") + chunk(b"IDAT", DATA[9:]) + END, "not in one piece"),
        (HEAD + chunk(b"ABCD", b"") + GREY[IDAT:], "unknown and critical"),
        (HEAD + chunk(b"abCD", b"") * 400 + GREY[IDAT:], "too many small chunks"),
        (png_of(PLAIN, width=8, colour=3), "its palette has 0 bytes"),
        (png_of(PLAIN, width=8, colour=3, before=chunk(b"PLTE", bytes(4))), "its palette has 4 bytes"),
        (png_of(PLAIN, width=8, colour=5), "unknown method"),
        (png_of(PLAIN, width=8, interlace=2), "unknown method"),
        (png_of(PLAIN, width=8, before=chunk(b"tRNS", b"\0")), "its transparency has 1 bytes"),
        (png_of(PLAIN, width=8, colour=3, before=chunk(b"PLTE", bytes(24)) + chunk(b"tRNS", bytes(9))), "has 9 bytes"),
        (png_of(PLAIN, width=4, colour=4, before=chunk(b"tRNS", bytes(4))), "its transparency has 4 bytes"),
    ],
)
def test_a_broken_file_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises((ValueError, zlib.error), match=reason):
        check_png(content)


def lowest_alpha(content: bytes) -> int:
    image = Pillow.open(BytesIO(content))
    image.load()
    png = check_png(content)
    return 255 if png is None else png.lowest_alpha(image)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_is_seen_at_every_depth(bits: int) -> None:
    top = (1 << bits) - 1
    # Eight pixels of value 0 and eight of the highest one.
    rows = [bytes([0] * bits), bytes([255] * bits)]
    for key, lowest in ((0, 0), (top, 0), (top ^ 1 if bits > 1 else 0, 255 if bits > 1 else 0), (256 + top, 0)):
        assert lowest_alpha(png_of(rows, width=8, bits=bits, before=chunk(b"tRNS", struct.pack(">H", key)))) == lowest
    assert lowest_alpha(png_of(rows, width=8, bits=bits)) == 255
    assert lowest_alpha(png_of(rows[:1], width=8, bits=bits, before=chunk(b"tRNS", struct.pack(">H", top)))) == 255


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_colour_of_a_palette_is_seen_at_every_depth(bits: int) -> None:
    rows: list[Any] = [bytes([0b01010101] * bits) if bits == 1 else bytes([0] * (bits - 1) + [1])]
    palette = chunk(b"PLTE", bytes(6))
    for alphas, lowest in ((b"\xff\x80", 0x80), (b"\x07", 7), (b"\xff\xff", 255), (b"", 255)):
        before = palette + (chunk(b"tRNS", alphas) if alphas else b"")
        assert lowest_alpha(png_of(rows, width=8, bits=bits, colour=3, before=before)) == lowest


def test_a_transparent_colour_is_seen() -> None:
    rows = [bytes([1, 2, 3, 4, 5, 6])]
    for key, lowest in (((1, 2, 3), 0), ((4, 5, 6), 0), ((1, 2, 6), 255), ((2, 3, 4), 255)):
        before = chunk(b"tRNS", struct.pack(">HHH", *key))
        assert lowest_alpha(png_of(rows, width=2, colour=2, before=before)) == lowest


def test_a_pixel_that_the_palette_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="it has 2 colours and a pixel of colour 2"):
        lowest_alpha(png_of([bytes([0, 1, 2])], width=3, colour=3, before=chunk(b"PLTE", bytes(6))))
