"""Images are decoded exactly, or refused before they are decoded."""

import base64
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from service.contract.readers import ImageSpec
from service.errors import EkibenError
from service.tasks.codecs.images import (
    MAX_EXTRA_BYTES,
    MAX_INFLATED_BYTES,
    PNG_START,
    decode_image,
    encode_png,
    make_grid,
    read_image,
)
from tests.service.tasks.codecs.pictures import chunk, exif, file_of, png_of, segment

GREY = ImageSpec(height=3, width=5, mode="L")
COLOUR = ImageSpec(height=3, width=5, mode="RGB")
GREY_PIXELS = np.arange(15, dtype=np.uint8).reshape(3, 5) * 17
COLOUR_PIXELS = np.stack([GREY_PIXELS, 255 - GREY_PIXELS, GREY_PIXELS // 2], axis=-1)
XMP_HEAD = b"XML:com.adobe.xmp\0\0\0\0\0"


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png_header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    """Return a PNG whose header declares this size and whose data is far too short for it."""
    size = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return PNG_START + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def png_with(chunks: bytes) -> bytes:
    png = file_of(Pillow.fromarray(GREY_PIXELS))
    end_of_header = len(PNG_START) + 25
    return png[:end_of_header] + chunks + png[end_of_header:]


def jpeg_with(segments: bytes) -> bytes:
    jpeg = file_of(Pillow.new("L", (5, 3), 200), "JPEG")
    return jpeg[:2] + segments + jpeg[2:]


def zipped(kind: bytes, size: int) -> bytes:
    return chunk(kind, b"name\0\0" + zlib.compress(bytes(size)))


@pytest.mark.parametrize(("image", "pixels"), [(GREY, GREY_PIXELS), (COLOUR, COLOUR_PIXELS)])
def test_png_and_pixels_give_the_same_image(image: ImageSpec, pixels: np.ndarray[Any, Any]) -> None:
    png = base64_of(file_of(Pillow.fromarray(pixels)))
    encoded = base64.b64decode(png)
    for item in (png, pixels.tolist(), "data:image/png;base64," + png, encoded, pixels):
        read = read_image(item, image, "/images/0")
        assert read.dtype == np.uint8
        assert np.array_equal(read, pixels)


def test_characters_outside_base64_are_not_passed_over() -> None:
    png = base64_of(file_of(Pillow.fromarray(GREY_PIXELS)))
    for text in (f"{png[:8]}!{png[8:]}", f"{png[:8]}\n{png[8:]}", f"data:image/png;base64,{png[:8]} {png[8:]}"):
        with pytest.raises(EkibenError, match="expected base64 of a PNG or JPEG image"):
            read_image(text, GREY, "/images/0")


def test_jpeg_is_decoded() -> None:
    flat = Pillow.new("L", (5, 3), 200)
    assert decode_image(file_of(flat, "JPEG"), GREY, "").tolist() == [[200] * 5] * 3


def test_grey_converts_to_colour_and_opaque_alpha_is_dropped() -> None:
    grey = Pillow.fromarray(GREY_PIXELS)
    assert np.array_equal(decode_image(file_of(grey), COLOUR, ""), np.stack([GREY_PIXELS] * 3, axis=-1))
    assert np.array_equal(decode_image(file_of(grey.convert("RGBA")), GREY, ""), GREY_PIXELS)


def with_transparent_pixel() -> Pillow.Image:
    image = Pillow.fromarray(GREY_PIXELS).convert("RGBA")
    image.putpixel((2, 1), (0, 0, 0, 10))
    return image


@pytest.mark.parametrize(
    ("item", "detail"),
    [
        (base64_of(file_of(Pillow.new("L", (3, 5)))), "expected an image of 3 x 5 pixels (height x width), got 5 x 3"),
        (base64_of(png_header(60000, 60000)), "got 60000 x 60000"),
        (base64_of(png_header(8000, 8000)), "got 8000 x 8000"),
        (base64_of(file_of(Pillow.fromarray(GREY_PIXELS))[:-30]), "got a broken one"),
        (base64_of(file_of(Pillow.new("I;16", (5, 3)))), "expected 8 bits per channel, got Pillow mode I;16"),
        (base64_of(file_of(with_transparent_pixel())), "got one with transparent pixels (alpha 10)"),
        (base64_of(file_of(Pillow.new("L", (5, 3)), "BMP")), "expected a PNG or JPEG image, got"),
        (base64_of(b"hello"), "expected a PNG or JPEG image, got 5 bytes of another format"),
        ("", "expected base64 of a PNG or JPEG image, got ''"),
        ("not base64!", "expected base64 of a PNG or JPEG image, got 'not base64!'"),
        ("bücher", "expected base64 of a PNG or JPEG image, got 'bücher'"),
        (7, "expected a base64 PNG or JPEG or a nested list of pixels, got 7"),
        (None, "got null"),
        (b"GIF89a", "expected a PNG or JPEG image, got 6 bytes of another format"),
        (GREY_PIXELS.T, "expected uint8 [3, 5], got uint8 [5, 3]"),
        (GREY_PIXELS.astype(np.float32), "expected uint8 [3, 5], got float32 [3, 5]"),
    ],
)
def test_invalid_image_is_refused(item: Any, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        read_image(item, GREY, "/images/2")
    assert caught.value.faults[0].pointer.startswith("/images/2")
    assert detail in caught.value.faults[0].detail


@given(st.binary(max_size=80), st.integers(0, 60))
@settings(max_examples=60)
def test_broken_files_raise_only_invalid_request(noise: bytes, at: int) -> None:
    good = file_of(Pillow.fromarray(GREY_PIXELS))
    for content in (noise, good[:at] + noise + good[at:], good[:at] + noise):
        try:
            assert decode_image(content, GREY, "").shape == (3, 5)
        except EkibenError as error:
            assert error.slug == "invalid-request"  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (jpeg_with(b"\xff\xfe\0\2" * 2000), "too many small chunks"),
        (jpeg_with(b"\xff" * 2000), "too many small chunks"),
        (png_with(chunk(b"vpAg", b"") * 2000), "too many small chunks"),
        (png_with(chunk(b"IDAT", b"") * 2000), "too many small chunks"),
        (png_with(chunk(b"abCd", bytes(MAX_EXTRA_BYTES + 120))), "expected at most 1048696 bytes"),
        (png_with(zipped(b"zTXt", 2 * MAX_INFLATED_BYTES)), "too large"),
        (png_with(zipped(b"zTXt", MAX_INFLATED_BYTES) * 17), "Too much memory used in text"),
        (png_with(zipped(b"iCCP", 2 * MAX_INFLATED_BYTES)), "too large"),
        (png_header(5, 3, 16, 2), "expected 8 bits per channel, got 16"),
        (png_header(5, 3, 16, 4), "expected 8 bits per channel, got 16"),
        (png_header(5, 3, 16, 6), "expected 8 bits per channel, got 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_size_of_metadata_is_bounded(content: bytes, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        decode_image(content, GREY, "")
    assert detail in caught.value.faults[0].detail


@pytest.mark.parametrize(
    "content",
    [
        jpeg_with(segment(0xE1, bytes(65000)) + b"".join(segment(0xE2, bytes(65000)) for _ in range(9))),
        jpeg_with(b"".join(segment(0xFE, b"a comment") for _ in range(20))),
        png_with(zipped(b"iCCP", 60000) + zipped(b"zTXt", 60000) + chunk(b"eXIf", bytes(65000))),
        png_with(chunk(b"tEXt", b"workflow\0" + b"{}" * 150_000) + chunk(b"iTXt", XMP_HEAD + b" " * 500_000)),
    ],
    ids=["EXIF and a print profile", "comments", "profile, text and EXIF", "a workflow and a history of edits"],
)
def test_usual_metadata_is_accepted(content: bytes) -> None:
    assert decode_image(content, GREY, "").shape == (3, 5)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_largest_encoding_of_noise_is_accepted(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    content = file_of(Pillow.fromarray(noise), kind, quality=100, subsampling=0, compress_level=0)
    assert decode_image(content, ImageSpec(height=224, width=224, mode="RGB"), "").shape == (224, 224, 3)


@pytest.mark.filterwarnings("error")  # Pillow warns if it reads the broken tag
def test_exif_data_is_not_read() -> None:
    broken = b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x9000, 7, 60000, 60000, 0)
    jpeg = file_of(Pillow.new("L", (5, 3), 200), "JPEG")
    # Without the resolution in the JFIF segment, Pillow would read one from the EXIF data.
    jfif = jpeg.index(b"\xff\xe0")
    bare = jpeg[:jfif] + segment(0xE1, broken) + jpeg[jfif + 18 :]
    assert decode_image(bare, GREY, "").tolist() == [[200] * 5] * 3


def test_png_round_trip() -> None:
    assert np.array_equal(decode_image(encode_png(GREY_PIXELS), GREY, ""), GREY_PIXELS)


def test_make_grid_contains_every_image_once() -> None:
    images = np.stack([np.full((2, 3), value, np.uint8) for value in (10, 20, 30, 40, 50)])
    canvas = make_grid(images)
    assert canvas.shape == (2 + 2 + 2, 3 + 2 + 3 + 2 + 3)
    assert [int(canvas[0, 0]), int(canvas[0, 5]), int(canvas[0, 10]), int(canvas[4, 0])] == [10, 20, 30, 40]
    assert int(canvas.astype(int).sum()) == int(images.astype(int).sum())
    assert np.array_equal(make_grid(images[:1]), images[0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_turned_before_its_size_is_checked(kind: str) -> None:
    tall = Pillow.fromarray(GREY_PIXELS).transpose(Pillow.Transpose.ROTATE_90)
    content = file_of(tall, kind, exif=b"Exif\0\0" + exif(6), quality=100)
    assert tall.size == (3, 5)
    assert np.abs(decode_image(content, GREY, "").astype(int) - GREY_PIXELS).max() <= (0 if kind == "PNG" else 3)
    # Upright it would fit, but it is turned.
    wide = file_of(Pillow.fromarray(GREY_PIXELS), kind, exif=b"Exif\0\0" + exif(6))
    with pytest.raises(EkibenError) as caught:
        decode_image(wide, GREY, "/images/0")
    assert "expected an image of 3 x 5 pixels (height x width), got 5 x 3" in caught.value.faults[0].detail


@pytest.mark.parametrize("image", [GREY, COLOUR])
@pytest.mark.parametrize(
    "behind",
    [chunk(b"eXIf", exif(3)), chunk(b"iTXt", XMP_HEAD + b'<a tiff:Orientation="3"/>')],
    ids=["eXIf", "XMP"],
)
def test_an_orientation_behind_the_pixels_counts(behind: bytes, image: ImageSpec) -> None:
    pixels = GREY_PIXELS if image.mode == "L" else COLOUR_PIXELS
    whole = file_of(Pillow.fromarray(pixels))
    assert np.array_equal(decode_image(whole[:-12] + behind + whole[-12:], image, ""), pixels[::-1, ::-1])


@pytest.mark.parametrize(
    "content",
    [
        png_of([bytes(5)] * 3, width=5)[:-12],
        file_of(Pillow.fromarray(GREY_PIXELS), "JPEG")[:-2],
        file_of(Pillow.fromarray(GREY_PIXELS), "JPEG")[:-5] + b"\xff\xd9",
        png_of([b"\0\1\2\3\4"] * 3, width=5, colour=3, before=chunk(b"PLTE", bytes(9))),
    ],
)
def test_what_a_decoder_would_guess_is_refused(content: bytes) -> None:
    with pytest.raises(EkibenError) as caught:
        read_image(base64_of(content), GREY, "/images/2")
    assert caught.value.faults[0].pointer == "/images/2"
    assert "expected a PNG or JPEG image, got a broken one: " in caught.value.faults[0].detail


@pytest.mark.parametrize(("key", "is_seen"), [(3, True), (0, False), (1, False)])
def test_transparent_grey_of_two_bits(key: int, is_seen: bool) -> None:
    content = png_of([b"\xaa\xc0"] * 3, width=5, bits=2, before=chunk(b"tRNS", struct.pack(">H", key)))
    if is_seen:
        with pytest.raises(EkibenError) as caught:
            decode_image(content, GREY, "")
        assert "transparent pixels (alpha 0)" in caught.value.faults[0].detail
    else:
        assert decode_image(content, GREY, "").tolist() == [[170] * 4 + [255]] * 3
        assert decode_image(content, COLOUR, "").tolist() == [[[170] * 3] * 4 + [[255] * 3]] * 3


def test_an_opaque_palette_with_transparency_is_read() -> None:
    before = chunk(b"PLTE", bytes([9, 9, 9, 200, 100, 0])) + chunk(b"tRNS", b"\0")
    content = png_of([b"\1\1\1\1\1"] * 3, width=5, colour=3, before=before)
    assert decode_image(content, COLOUR, "").tolist() == [[[200, 100, 0]] * 5] * 3
    expected = np.asarray(Pillow.new("RGB", (5, 3), (200, 100, 0)).convert("L"))
    assert np.array_equal(decode_image(content, GREY, ""), expected)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_whole_jpegs_of_every_mode_have_the_pixels_of_pillow(mode: str, progressive: bool) -> None:
    content = file_of(Pillow.fromarray(COLOUR_PIXELS).convert(mode), "JPEG", progressive=progressive)
    expected = np.asarray(Pillow.open(BytesIO(content)).convert("RGB"))
    assert np.array_equal(decode_image(content, COLOUR, ""), expected)
    assert np.array_equal(decode_image(content + b"behind", COLOUR, ""), expected)
