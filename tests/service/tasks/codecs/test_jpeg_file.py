"""A JPEG of which nothing is missing passes; any other is refused."""

import re

import pytest

from service.tasks.codecs.jpeg_file import MAX_SCANS, check_jpeg
from tests.service.tasks.codecs.pictures import file_of, jpegs, photo, segment

GREY = file_of(photo(28, 28, "L"), "JPEG")
COLOUR = file_of(photo(40, 40), "JPEG")
PROGRESSIVE = file_of(photo(40, 40), "JPEG", progressive=True)
RESTARTS = file_of(photo(40, 40, "L"), "JPEG", restart_marker_blocks=3)
SCAN = b"\xff\xda"


def data_of(jpeg: bytes) -> int:
    """Return where the data of the first scan begins."""
    at = jpeg.index(SCAN)
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])


def test_every_whole_file_passes() -> None:
    for number, content in enumerate(jpegs()):
        check_jpeg(content)
        check_jpeg(content + b"bytes behind the end" * (number % 2))


def test_quantization_steps_of_16_bits_may_have_a_byte_of_0() -> None:
    check_jpeg(GREY[:2] + segment(0xDB, b"\x10" + b"\0\1\1\0" * 32) + GREY[2:])


def test_a_large_file_passes_and_is_read_to_its_end() -> None:
    for progressive in (False, True):
        content = file_of(photo(400, 600), "JPEG", quality=95, progressive=progressive)
        check_jpeg(content)
        with pytest.raises(ValueError, match="ends before"):
            check_jpeg(content[:-2000] + b"\xff\xd9")


def without_scan(jpeg: bytes, number: int) -> bytes:
    places = [match.start() for match in re.finditer(re.escape(SCAN), jpeg)] + [len(jpeg) - 2]
    return jpeg[: places[number]] + jpeg[places[number + 1] :]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GREY[:-2], "before its end marker"),
        (GREY[:-40], "before its end marker"),
        (GREY[:-40] + b"\xff\xd9", "ends before its last block"),
        (COLOUR[: data_of(COLOUR) + 30] + b"\xff\xd9", "ends before its last block"),
        (GREY[:-2] + bytes(40) + b"\xff\xd9", "bytes more than its blocks"),
        (GREY[: data_of(GREY) + 40] + GREY[data_of(GREY) + 90 :], "ends before|undefined"),
        (GREY[: data_of(GREY)] + b"\xfe" * 60 + GREY[data_of(GREY) + 60 :], "its data"),
        (GREY[:2] + b"junk" + GREY[2:], "expected a marker at byte 2"),
        (GREY[:20] + GREY[300:], "."),
        (GREY[:2] + segment(0xC0, GREY[GREY.index(b"\xff\xc0") + 4 :][:9]) + GREY[2:], "two frames"),
        (GREY.replace(b"\xff\xc0", b"\xff\xc9"), r"its coding process \(SOF9\) is not supported"),
        (GREY[:2] + segment(0xDD, b"\0\1") + GREY[2:], "more than its blocks"),
        (GREY[:2] + segment(0xDB, b"\0" + bytes([1] * 63) + b"\0") + GREY[2:], "quantization table has a step of 0"),
        (GREY[:2] + segment(0xDB, b"\x10" + b"\0\1" * 40 + bytes(48)) + GREY[2:], "quantization table has a step of 0"),
        (RESTARTS.replace(b"\xff\xd1", b"\xff\xd2", 1), "out of order"),
        (RESTARTS.replace(b"\xff\xd1", b""), "."),
        (RESTARTS.replace(segment(0xDD, b"\0\3"), b""), "more than its blocks|ends before|more restart intervals"),
        *((without_scan(PROGRESSIVE, i), "out of order|do not give every|its data|Huffman table") for i in range(10)),
        (PROGRESSIVE[: PROGRESSIVE.rindex(SCAN)] + b"\xff\xd9", "do not give every coefficient"),
        (b"\xff\xd8\xff\xd9", "do not give every coefficient"),
        (b"\xff\xd8" + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\xff\xd9", "malformed"),
        (b"\xff\xd8" + segment(0xC0, b""), "malformed"),
        (b"\xff\xd8" + segment(0xFE, b"") * 600 + GREY[2:], "too many small chunks"),
    ],
)
def test_a_broken_file_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_jpeg(content)


def test_number_of_scans_is_bounded() -> None:
    refinement = segment(0xDA, b"\1\1\0\0\0\x10") + b"\xff"
    head = PROGRESSIVE[: PROGRESSIVE.index(SCAN)]
    with pytest.raises(ValueError, match=f"more than {MAX_SCANS} scans|out of order|ends before"):
        check_jpeg(head + refinement * 100 + b"\xff\xd9")
