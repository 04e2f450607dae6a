"""Decodes images from base64 or raw PNG and JPEG and from pixel lists; encodes images as PNG.

Invariant: an image is decoded only if its header declares a size that the model takes: exactly that of its input, one
inside the bounds of its free axes, or up to MAX_PIXELS for a model that declares how images are resized. Metadata is
bounded in bytes, in number of reads and in inflated size. Nothing that a decoder would guess or repair is accepted: the
file must be whole. Images are turned as their orientation says, never reduced in bit depth, scaled only as declared,
and images with transparent pixels are refused.
"""

import base64
import math
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

from service.contract.readers import ImageSpec
from service.errors import EkibenError
from service.manifest import RequestLimits
from service.tasks.codecs.jpeg_file import check_jpeg
from service.tasks.codecs.json_arrays import parse_pixels
from service.tasks.codecs.orientation import upright
from service.tasks.codecs.picture_size import resize_image, resize_of, size_error
from service.tasks.codecs.png_file import PngFile, check_png
from service.tasks.faults import fault, type_fault

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
ALPHA_MODES = {"LA", "PA", "RGBA"}
GRID_GAP = 2
# Noise in the largest encoding takes 6 bytes per pixel.
MAX_BYTES_PER_PIXEL = 8
# Metadata: EXIF, thumbnails and colour profiles. A profile for print takes half of it.
MAX_EXTRA_BYTES = 1 << 20
# Reads of any size, in addition to one per KiB of the file; encoders write chunks of 8 KiB and more.
MAX_READS = 256
# The inflated size of a compressed text or colour profile of a PNG; an sRGB profile has a twentieth of it.
MAX_INFLATED_BYTES = 1 << 16

PngImagePlugin.MAX_TEXT_CHUNK = MAX_INFLATED_BYTES
# Of all texts together. Programs keep a drawing, a workflow or a history of edits there, mostly uncompressed.
PngImagePlugin.MAX_TEXT_MEMORY = MAX_EXTRA_BYTES


def read_image(item: Any, spec: ImageSpec, pointer: str, limits: RequestLimits | None = None) -> npt.NDArray[np.uint8]:
    """Decode a base64 string or nested lists of pixels; Python callers may also pass file bytes or a uint8 array.

    `limits` bounds the free axes of the spec. Raises EkibenError("invalid-request").
    """
    match item:
        case str():
            return decode_image(_from_base64(item, pointer), spec, pointer, limits)
        case bytes():
            return decode_image(item, spec, pointer, limits)
        case list():
            if spec.has_one_size:
                return parse_pixels(item, spec.fixed_shape, pointer)
            return _resized(parse_pixels(item, _list_shape(item, spec, pointer, limits), pointer), spec, pointer)
        case np.ndarray():
            return _resized(_checked_array(item, spec, pointer, limits), spec, pointer)
        case _:
            raise type_fault(pointer, "a base64 PNG or JPEG or a nested list of pixels", item)


def decode_image(
    content: bytes, spec: ImageSpec, pointer: str, limits: RequestLimits | None = None
) -> npt.NDArray[np.uint8]:
    """Decode a PNG or JPEG, convert its mode and resize it as the spec declares; raises as `read_image`."""
    is_fixed = spec.has_one_size
    if is_fixed:
        _check_num_bytes(content, spec.height or 0, spec.width or 0, pointer)
    if not content.startswith((PNG_START, JPEG_START)):
        raise fault(pointer, f"expected a PNG or JPEG image, got {len(content)} bytes of another format")
    file_type = PngImagePlugin.PngImageFile if content.startswith(PNG_START) else _JpegWithoutExif
    try:
        with file_type(_BoundedReads(content)) as image:
            width, height = image.size
            # The orientation may stand behind the pixels, and may swap height and width.
            if (detail := size_error(height, width, spec, limits)) and size_error(width, height, spec, limits):
                raise fault(pointer, detail)
            if not is_fixed:
                _check_num_bytes(content, height, width, pointer)
            _check_depth(image, pointer)
            png = _check_file(content)
            # Metadata may stand behind the pixels.
            image.load()
            converted = upright(_convert(image, png, spec, pointer), image.info)
            if detail := size_error(converted.height, converted.width, spec, limits):
                raise fault(pointer, detail)
            return np.asarray(converted if is_fixed else resize_image(converted, spec, pointer), np.uint8)
    except (EkibenError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - on a broken file Pillow raises exceptions of many types
        raise fault(pointer, f"expected a PNG or JPEG image, got a broken one: {error}") from None


def encode_png(pixels_HW: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(pixels_HW).save(buffer, "PNG")
    return buffer.getvalue()


def make_grid(images_BHW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Arrange images [batch, height, width] row by row in one nearly square image with dark gaps."""
    count, height, width = images_BHW.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, height + GRID_GAP, width + GRID_GAP), np.uint8)
    cells[:count, :height, :width] = images_BHW
    canvas = cells.reshape(rows, columns, *cells.shape[1:]).transpose(0, 2, 1, 3)
    return canvas.reshape(rows * cells.shape[1], columns * cells.shape[2])[:-GRID_GAP, :-GRID_GAP]


class _BoundedReads(BytesIO):
    """A file with a bounded number of reads: Pillow reads each chunk separately, even an empty one."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._reads_left = MAX_READS + len(content) // 1024

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise ValueError("it has too many small chunks")
        return super().read(size)


class _JpegWithoutExif(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF data is ignored: Pillow would read a resolution from it and warn about each broken tag."""

    def getexif(self) -> Pillow.Exif:
        return Pillow.Exif()


def _from_base64(text: str, pointer: str) -> bytes:
    """Decode base64, with or without the prefix of a data URL."""
    if text.startswith("data:image/"):
        text = text.partition(",")[2]
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        content = b""
    if not content:
        raise type_fault(pointer, "base64 of a PNG or JPEG image", text)
    return content


def _check_num_bytes(content: bytes, height: int, width: int, pointer: str) -> None:
    max_bytes = height * width * MAX_BYTES_PER_PIXEL + MAX_EXTRA_BYTES
    if len(content) > max_bytes:
        size = f"an image of {height} x {width} pixels (height x width)"
        raise fault(pointer, f"expected at most {max_bytes} bytes for {size}, got {len(content)}")


def _checked_array(
    item: npt.NDArray[Any], spec: ImageSpec, pointer: str, limits: RequestLimits | None
) -> npt.NDArray[np.uint8]:
    shape = spec.shape
    if item.dtype != np.uint8 or item.ndim != len(shape) or item.shape[2:] != shape[2:]:
        raise fault(pointer, f"expected uint8 {list(shape)}, got {item.dtype} {list(item.shape)}")
    if size_error(item.shape[0], item.shape[1], spec, limits):
        raise fault(pointer, f"expected uint8 {list(shape)}, got {item.dtype} {list(item.shape)}")
    return item


def _list_shape(item: list[Any], spec: ImageSpec, pointer: str, limits: RequestLimits | None) -> tuple[int, ...]:
    """Return the shape that nested lists of pixels must have for a model of several sizes: that of their first row."""
    if not item or type(item[0]) is not list or not item[0]:
        raise type_fault(pointer, "a non-empty list of rows of pixels", item)
    if detail := size_error(len(item), len(item[0]), spec, limits):
        raise fault(pointer, detail)
    return (len(item), len(item[0])) if spec.mode == "L" else (len(item), len(item[0]), 3)


def _resized(pixels: npt.NDArray[np.uint8], spec: ImageSpec, pointer: str) -> npt.NDArray[np.uint8]:
    if resize_of(spec) is None:
        return pixels
    return np.asarray(resize_image(Pillow.fromarray(pixels), spec, pointer), np.uint8)


def _check_file(content: bytes) -> PngFile | None:
    """Raise ValueError if the file is not whole; return what the pixels of a PNG need."""
    if content.startswith(PNG_START):
        return check_png(content)
    check_jpeg(content)
    return None


def _check_depth(image: ImageFile.ImageFile, pointer: str) -> None:
    if image.mode not in EIGHT_BIT_MODES:
        raise fault(pointer, f"expected 8 bits per channel, got Pillow mode {image.mode}")
    # Pillow would truncate 16 bits to 8 instead of rounding.
    if any(";16" in str(tile.args) for tile in image.tile):
        raise fault(pointer, "expected 8 bits per channel, got 16")


def _convert(image: ImageFile.ImageFile, png: PngFile | None, spec: ImageSpec, pointer: str) -> Pillow.Image:
    """Return the image in the mode of the spec; refuse what would lose transparency."""
    opaque: Pillow.Image = image
    lowest = 255
    if image.mode in ALPHA_MODES:
        rgba = image.convert("RGBA")
        lowest, opaque = int(np.asarray(rgba)[..., 3].min()), rgba.convert("RGB")
    elif png is not None:
        lowest = png.lowest_alpha(image)
        # Pillow would make the opaque colour that it stands for transparent.
        image.info.pop("transparency", None)
    if lowest < 255:
        got = f"one with transparent pixels (alpha {lowest})"
        raise fault(pointer, f"expected an opaque image, got {got}: flatten it first")
    return opaque if opaque.mode == spec.mode else opaque.convert(spec.mode)
