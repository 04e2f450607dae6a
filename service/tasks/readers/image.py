"""Images: PNG and JPEG files in base64, or nested lists of pixels.

Few pixels are decoded on the event loop, more on a thread of the runner, image by image: a photograph takes tens of
milliseconds.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract.readers import ImageReader
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.manifest import Manifest
from service.tasks.body import check_items
from service.tasks.codecs.images import decode_image, read_image
from service.tasks.faults import fault
from service.tasks.readers.payload import Fields, Group, Payload

Image = npt.NDArray[np.uint8]
FIELD = "images"
# Of a request; they take about a millisecond.
MAX_INLINE_PIXELS = 1 << 16
EXAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAaUlEQVR42t2SUQ6AMAhDqyfjaHiyzpPVD2NkKMvip3xSXgvZgJ+WUZLs0XfdxYScXb/GrBdp0aRn"
    "4yjfYu+IkcaB5uWprDlQwsdl6sCkrV0g0AbL2KxperR84RJAbPASVPYNJHe0Nv+lDnIrTQRc7+xlAAAAAElFTkSuQmCC"
)


async def read(model: Model, runner: Runner, fields: Fields, context: RequestContext) -> Payload:
    """Decode all images of a request; images of different sizes become different groups."""
    manifest, items = model.manifest, fields[FIELD]
    if items is None:
        raise fault("/images", f"this field is required: {manifest.name} reads images")
    check_items(items, manifest, "/images")
    reader = image_reader(manifest)
    if is_quick(reader, len(items)):
        images = [read_image(item, reader, f"/images/{i}", manifest.limits) for i, item in enumerate(items)]
        inputs = {"images": images[0][None] if len(images) == 1 else np.stack(images)}
        return Payload("/images", (Group(inputs, range(len(images))),))
    images = [
        await runner.call_host(read_item, item, manifest, f"/images/{i}", context=context)
        for i, item in enumerate(items)
    ]
    return Payload(pointer="/images", groups=group_by_shape(images))


async def read_file(model: Model, runner: Runner, content: bytes, context: RequestContext) -> Payload:
    """Decode one PNG or JPEG that is the whole body of a request."""
    manifest = model.manifest
    reader = image_reader(manifest)
    if is_quick(reader, 1):
        image = decode_image(content, reader, "", manifest.limits)
    else:
        image = await runner.call_host(decode_image, content, reader, "", manifest.limits, context=context)
    return Payload(pointer="", groups=(Group({"images": image[None]}, (0,)),))


def read_item(item: Any, manifest: Manifest, pointer: str) -> Image:
    """Decode one image, uint8 [height, width(, 3)]; raises EkibenError("invalid-request")."""
    return read_image(item, image_reader(manifest), pointer, manifest.limits)


def group_by_shape(images: list[Image]) -> tuple[Group, ...]:
    """Return one group for each size, in the order of their first images."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(i)
    return tuple(Group({"images": np.stack([images[i] for i in items])}, items) for items in by_shape.values())


def image_reader(manifest: Manifest) -> ImageReader:
    assert isinstance(manifest.reader, ImageReader), "the reader of image models"
    return manifest.reader


def is_quick(reader: ImageReader, num_items: int) -> bool:
    """Whether these items are certain to have few pixels, because the model takes images of one size."""
    return reader.has_one_size and (reader.height or 0) * (reader.width or 0) * num_items <= MAX_INLINE_PIXELS
