"""Scores images, given as pixels or as encoded files. A column of pixels is used as it is, without a loop over rows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract.readers import ImageReader, ImageSpec
from service.scoring.input.rows import Rows
from service.scoring.scorers.cells import pixel_block, pixels_from_bytes, split_faults, to_python, try_read, unwrap
from service.scoring.scorers.scorer import ScoredRows, Scorer, run_batches
from service.tasks.codecs.images import read_image
from service.tasks.codecs.json_arrays import parse_pixels


class ImageScorer(Scorer):
    def score(self, rows: Rows) -> ScoredRows:
        images, indexes, faults = self._read(rows)
        probabilities = np.zeros((0, len(self._labels)), np.float32)
        if len(images):
            probabilities = run_batches(self._model, "images", images, "probabilities")
        not_finite = self._output_check.bad_rows({"probabilities": probabilities}, {})
        return self._rank((indexes, faults), probabilities, not_finite)

    def _read(self, rows: Rows) -> tuple[npt.NDArray[np.uint8], Any, dict[int, str]]:
        """The images that could be read, their indexes, and why the others could not."""
        reader, name = self._model.manifest.reader, self._columns["image"]
        assert isinstance(reader, ImageReader)
        column, shape = unwrap(rows.columns[name]), reader.fixed_shape
        block = pixel_block(column, shape) if not rows.faults else None
        if block is not None:
            return block, np.arange(len(block)), {}
        results = [try_read(_read_one, item, reader) for item in to_python(column)]
        images, indexes, faults = split_faults(results, rows.faults, name)
        return (np.stack(images) if images else np.zeros((0, *shape), np.uint8)), indexes, faults


def _read_one(item: Any, image: ImageSpec) -> npt.NDArray[np.uint8]:
    raw = pixels_from_bytes(item, image.fixed_shape)
    if raw is not None:
        return raw
    if isinstance(item, list) and len(item) == np.prod(image.fixed_shape) and item and not isinstance(item[0], list):
        return parse_pixels(item, (len(item),), "").reshape(image.fixed_shape)
    return read_image(item, image, "")
