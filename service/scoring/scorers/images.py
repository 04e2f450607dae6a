"""Reads images, given as pixels or as encoded files. A column of pixels is used as it is, without a loop over rows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract.readers import ImageReader
from service.drift.statistics import image_values
from service.manifest import Manifest
from service.scoring.input.rows import Rows
from service.scoring.scorers.cells import pixel_block, pixels_from_bytes, split_faults, to_python, try_read, unwrap
from service.scoring.scorers.scorer import Items, Scorer, batches_by_shape, batches_of
from service.tasks.codecs.images import read_image
from service.tasks.codecs.json_arrays import parse_pixels
from service.tasks.readers.image import image_reader


class ImageScorer(Scorer):
    def _read(self, rows: Rows) -> Items:
        name = self._columns["image"]
        column, manifest = unwrap(rows.columns[name]), self._manifest
        shape = _raw_shape(image_reader(manifest))
        if shape is not None and not rows.faults:
            block = pixel_block(column, shape)
            if block is not None:
                return Items(
                    indexes=np.arange(len(block)),
                    faults={},
                    batches=batches_of("images", block),
                    measure=lambda part, _: image_values(block[part]),
                    num_read=len(block),
                )
        results = [try_read(_read_one, item, manifest) for item in to_python(column)]
        images, indexes, faults = split_faults(results, rows.faults, name)
        measured: dict[str, Any] = {"measure": lambda part, _: image_values(images[part]), "num_read": len(images)}
        if shape is not None and images:
            return Items(indexes=indexes, faults=faults, batches=batches_of("images", np.stack(images)), **measured)
        batches = batches_by_shape([{"images": image[None]} for image in images])
        return Items(indexes=indexes, faults=faults, batches=batches, **measured)


def _read_one(item: Any, manifest: Manifest) -> npt.NDArray[np.uint8]:
    reader = image_reader(manifest)
    shape = _raw_shape(reader)
    if shape is not None:
        raw = pixels_from_bytes(item, shape)
        if raw is not None:
            return raw
        if isinstance(item, list) and len(item) == np.prod(shape) and item and not isinstance(item[0], list):
            return parse_pixels(item, (len(item),), "").reshape(shape)
    return read_image(item, reader, "", manifest.limits)


def _raw_shape(reader: ImageReader) -> tuple[int, ...] | None:
    """The shape of pixels without a header; None for a model that takes images of several sizes."""
    is_fixed = reader.resize is None and reader.height is not None and reader.width is not None
    return reader.fixed_shape if is_fixed else None
