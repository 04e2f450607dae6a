"""Pictures are turned as PIL.ImageOps.exif_transpose turns them."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from service.tasks.codecs.orientation import upright
from tests.service.tasks.codecs.pictures import chunk, exif, file_of, photo, segment

PICTURE = photo(3, 5, "L")
PREFIX = b"Exif\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def jpeg_with(*bodies: bytes) -> bytes:
    jpeg = file_of(PICTURE, "JPEG")
    return jpeg[:2] + b"".join(segment(0xE1, body) for body in bodies) + jpeg[2:]


def png_with(chunks: bytes, *, behind: bool = False) -> bytes:
    png = file_of(PICTURE)
    at = len(png) - 12 if behind else 33
    return png[:at] + chunks + png[at:]


def check(content: bytes) -> None:
    """Compare with Pillow, which reads the file anew."""
    image, reference = Pillow.open(BytesIO(content)), Pillow.open(BytesIO(content))
    image.load()
    turned, expected = upright(image, image.info), ImageOps.exif_transpose(reference)
    assert turned.size == expected.size
    assert np.array_equal(np.asarray(turned), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(11))
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_orientations(orientation: int, order: str) -> None:
    for kind in (3, 4):
        data = exif(orientation, order=order, kind=kind, tags_before=orientation)
        check(jpeg_with(PREFIX + data))
        check(png_with(chunk(b"eXIf", data)))
        check(png_with(chunk(b"eXIf", data), behind=True))
    check(file_of(PICTURE, "JPEG", exif=PREFIX + data))


def test_orientation_turns_each_of_eight_ways() -> None:
    turned = set()
    for orientation in range(1, 9):
        image = Pillow.open(BytesIO(png_with(chunk(b"eXIf", exif(orientation)))))
        image.load()
        turned.add((upright(image, image.info).size, upright(image, image.info).tobytes()))
    assert len(turned) == 8


def test_orientation_in_xmp_counts_without_one_in_exif() -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    check(jpeg_with(XMP + xmp))
    check(jpeg_with(XMP + b"<tiff:Orientation>8</tiff:Orientation>"))
    check(jpeg_with(XMP + xmp, PREFIX + exif(3)))
    check(jpeg_with(PREFIX + exif(1), XMP + xmp))
    check(png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)))
    profile = b"Raw profile type exif\0\nexif\n 34\n" + (PREFIX + exif(6)).hex().encode() + b"\n"
    check(png_with(chunk(b"tEXt", profile)))


def test_several_segments() -> None:
    check(jpeg_with(PREFIX + exif(6), PREFIX + exif(3)))
    check(jpeg_with(PREFIX + PREFIX + exif(6)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MM\0*",
        b"MM\0*\0\0\0\x08",
        exif(6)[:-6],
        b"XX" + exif(6)[2:],
        b"MM\0*\xff\xff\xff\xff" + exif(6)[8:],
        exif(6, kind=3)[:15],
    ],
)
def test_data_that_cannot_be_read_turns_nothing(data: bytes) -> None:
    for info in ({"exif": data}, {"exif": PREFIX + data}, {"Raw profile type exif": "\n\n\nxyz"}):
        assert upright(PICTURE, info) is PICTURE
