"""Pictures on the wire: base64 PNG or JPEG, raw bytes, and pixel lists in; PNG out.

Invariant: a picture is decoded only after its header has said that it has exactly the size that the model takes, so its
pixels take no more than one model input. What stands beside the pixels is bounded, too: in bytes, in pieces, and in
what the compressed ones inflate to. Nothing is scaled or cut to fewer bits, and no transparency is guessed away.
"""

import base64
import binascii
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

from service.bundle import Image
from service.errors import EkibenError
from service.tasks.arrays import pixels
from service.tasks.body import refuse, wrong

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
GRID_GAP = 2
MAX_BYTES_PER_PIXEL = 8  # noise, saved as badly as can be, takes 6
MAX_EXTRA_BYTES = 1 << 20  # beside the pixels: EXIF, thumbnails, and the colour profile of a printing press, half of it
MAX_READS = 256  # of pieces of any size, beside one for each KiB; writers make pieces of 8 KiB and more
MAX_TEXT_BYTES = 1 << 16  # that a PNG's compressed text, or its colour profile, inflates to: 20 times sRGB's

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES


def read_images(items: Sequence[Any], image: Image, where: str) -> npt.NDArray[np.uint8]:
    """Every item as one batch uint8 [batch, height, width(, 3)]."""
    images = [read_image(item, image, f"{where}/{i}") for i, item in enumerate(items)]
    return images[0][None] if len(images) == 1 else np.stack(images)


def read_image(item: Any, image: Image, where: str) -> npt.NDArray[np.uint8]:
    """One picture: base64 text, nested lists of pixels; from callers in Python also encoded bytes, or a uint8 array."""
    match item:
        case str():
            return decode_picture(_from_base64(item, where), image, where)
        case bytes():
            return decode_picture(item, image, where)
        case np.ndarray():
            if item.dtype != np.uint8 or item.shape != image_shape(image):
                expected = f"expected uint8 {list(image_shape(image))}"
                raise refuse(where, f"{expected}, got {item.dtype} {list(item.shape)}")
            return item
        case list():
            return pixels(item, image_shape(image), where)
        case _:
            raise wrong(where, "a base64 PNG or JPEG or a nested list of pixels", item)


def image_shape(image: Image) -> tuple[int, ...]:
    return (image.height, image.width) if image.mode == "L" else (image.height, image.width, 3)


def decode_picture(content: bytes, image: Image, where: str) -> npt.NDArray[np.uint8]:
    """PNG or JPEG bytes of exactly the model's size, in the model's mode."""
    max_bytes = image.width * image.height * MAX_BYTES_PER_PIXEL + MAX_EXTRA_BYTES
    if len(content) > max_bytes:
        raise refuse(where, f"expected at most {max_bytes} bytes for {_size(image)}, got {len(content)}")
    if not content.startswith((PNG_START, JPEG_START)):
        raise refuse(where, f"expected a PNG or JPEG image, got {len(content)} bytes that are none")
    try:
        with (PngImagePlugin.PngImageFile if content.startswith(PNG_START) else _Jpeg)(_Pieces(content)) as file:
            _check_header(file, image, where)
            picture = _opaque(file, where) if file.has_transparency_data else file
            return np.asarray(picture.convert(image.mode), np.uint8)
    except EkibenError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise whatever a broken file makes them meet
        raise refuse(where, f"expected a PNG or JPEG image, got a broken one: {error}") from None


def encode_png(pixels_HW: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(pixels_HW).save(buffer, "PNG")
    return buffer.getvalue()


def to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def grid(images_BHW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """All images in one, row by row, as square as can be, with a dark gap between them; one image is itself."""
    count, height, width = images_BHW.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas_HW = np.zeros((rows * (height + GRID_GAP) - GRID_GAP, columns * (width + GRID_GAP) - GRID_GAP), np.uint8)
    for i, image_HW in enumerate(images_BHW):
        top, left = i // columns * (height + GRID_GAP), i % columns * (width + GRID_GAP)
        canvas_HW[top : top + height, left : left + width] = image_HW
    return canvas_HW


class _Pieces(BytesIO):
    """A file that is not read in pieces without end: Pillow takes microseconds for an empty one."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._reads_left = MAX_READS + len(content) // 1024

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise ValueError("it is in too many small pieces")
        return super().read(size)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """Of whose EXIF data nothing is wanted: Pillow would look there for a resolution, and warn of every broken tag."""

    def getexif(self) -> Pillow.Exif:
        return Pillow.Exif()


def _from_base64(text: str, where: str) -> bytes:
    """Base64, bare or as the data URL that a browser makes."""
    if text.startswith("data:image/"):
        text = text.partition(",")[2]
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise wrong(where, "base64", text) from None
    if not content:
        raise wrong(where, "the base64 of a PNG or JPEG image", text)
    return content


def _check_header(picture: ImageFile.ImageFile, image: Image, where: str) -> None:
    if picture.size != (image.width, image.height):
        raise refuse(where, f"expected {_size(image)}, got {picture.height} x {picture.width}")
    if picture.mode not in EIGHT_BIT_MODES:
        raise refuse(where, f"expected 8 bits a channel, got Pillow mode {picture.mode}")
    if any(";16" in str(tile.args) for tile in picture.tile):  # which Pillow would cut, not round, to 8
        raise refuse(where, "expected 8 bits a channel, got 16")


def _opaque(picture: Pillow.Image, where: str) -> Pillow.Image:
    rgba = picture.convert("RGBA")
    lowest = int(np.asarray(rgba)[..., 3].min())
    if lowest < 255:
        raise refuse(
            where, f"expected an opaque image, got one with transparent pixels (alpha {lowest}): flatten it first"
        )
    return rgba.convert("RGB")


def _size(image: Image) -> str:
    return f"an image of {image.height} x {image.width} pixels (height x width)"
