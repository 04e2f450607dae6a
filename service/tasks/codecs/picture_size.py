"""The sizes of images that a model takes, and the scaling that it declares.

Invariant: a picture is scaled and cut exactly as Pillow and torchvision, or transformers, do it: the long edge and the
place of the crop have their rounding. No picture, scaled or not, has more than MAX_PIXELS.
"""

import math

from PIL import Image as Pillow

from service.contract.readers import ImageReader, ImageSpec, Resize
from service.manifest import RequestLimits
from service.tasks.faults import fault

# 100 MB in RGB; phones take photographs of 12 to 24 million pixels.
MAX_PIXELS = 1 << 25
FILTERS = {
    "nearest": Pillow.Resampling.NEAREST,
    "box": Pillow.Resampling.BOX,
    "bilinear": Pillow.Resampling.BILINEAR,
    "hamming": Pillow.Resampling.HAMMING,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}


def resize_of(spec: ImageSpec) -> Resize | None:
    return spec.resize if isinstance(spec, ImageReader) else None


def size_error(height: int, width: int, spec: ImageSpec, limits: RequestLimits | None) -> str | None:
    """Return why the model takes no image of this size, or None; `limits` bounds the free axes of the spec."""
    if height == spec.height and width == spec.width:
        return None
    if resize_of(spec) is not None:
        if height * width <= MAX_PIXELS:
            return None
        return f"expected an image of at most {MAX_PIXELS} pixels, got {height} x {width} (height x width)"
    accepted = []
    is_accepted = True
    for axis, size, fixed in (("height", height, spec.height), ("width", width, spec.width)):
        if fixed is not None:
            is_accepted &= size == fixed
            accepted.append(str(fixed))
        else:
            assert limits is not None, "a free axis has bounds"
            bounds = limits.axis_range(axis)
            is_accepted &= size in bounds
            accepted.append(str(bounds))
    if is_accepted:
        return None
    return f"expected an image of {' x '.join(accepted)} pixels (height x width), got {height} x {width}"


def resize_image(image: Pillow.Image, spec: ImageSpec, pointer: str) -> Pillow.Image:
    """Scale a picture and cut out its centre as the spec declares; raises EkibenError if it is far too long."""
    resize = resize_of(spec)
    if resize is None:
        return image
    height, width = scaled_size(image.height, image.width, resize)
    if height * width > MAX_PIXELS:
        got = f"{image.height} x {image.width} (height x width), which scales to {height} x {width}"
        raise fault(pointer, f"expected an image that scales to at most {MAX_PIXELS} pixels, got {got}")
    if (image.height, image.width) != (height, width):
        image = image.resize((width, height), FILTERS[resize.resample])
    if resize.crop is None:
        return image
    crop_height, crop_width = resize.crop
    half = round if resize.halves == "even" else math.floor
    top, left = half((height - crop_height) / 2), half((width - crop_width) / 2)
    return image.crop((left, top, left + crop_width, top + crop_height))


def scaled_size(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """Return height and width after scaling: those declared, or the shortest edge and the long one in proportion."""
    if resize.size is not None:
        return resize.size
    short = resize.shortest_edge
    assert short is not None, "the contract demands one of them"
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short
