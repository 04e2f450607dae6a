"""Scores images, given as pixels or as encoded files. A column of pixels is used as it is, without a loop over rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.families import ImageClassifier
from service.scoring.input.rows import Rows
from service.scoring.scorers.items import pixel_block, pixels_from_bytes, split_faults, to_python, try_read, unwrap
from service.scoring.scorers.scorer import ScoredRows, rank_columns, run_batches
from service.tasks.codecs.images import read_image
from service.tasks.codecs.json_arrays import parse_pixels


class ImageScorer:
    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        assert isinstance(model.manifest.parameters, ImageClassifier)
        self._model = model
        self._column = columns["image"]
        self._image = model.manifest.parameters.image
        self._shape = self._image.shape
        self._labels = pa.array(model.manifest.parameters.labels)
        self._top_k: int = request.get("top_k", 1)

    def score(self, rows: Rows) -> ScoredRows:
        images, indexes, faults = self._read(rows)
        probabilities = np.zeros((0, len(self._labels)), np.float32)
        if len(images):
            probabilities = run_batches(self._model, "images", images, "probabilities")
        return ScoredRows(indexes=indexes, faults=faults, **rank_columns(probabilities, self._labels, self._top_k))

    def close(self) -> None:
        """Nothing to close."""

    def _read(self, rows: Rows) -> tuple[npt.NDArray[np.uint8], Any, dict[int, str]]:
        """The images that could be read, their indexes, and why the others could not."""
        column = unwrap(rows.columns[self._column])
        block = pixel_block(column, self._shape) if not rows.faults else None
        if block is not None:
            return block, np.arange(len(block)), {}
        results = [try_read(self._read_one, item) for item in to_python(column)]
        indexes, faults = split_faults(results, rows.faults, self._column)
        good = [image for image in (results[i] for i in indexes) if not isinstance(image, EkibenError)]
        return (np.stack(good) if good else np.zeros((0, *self._shape), np.uint8)), indexes, faults

    def _read_one(self, item: Any) -> npt.NDArray[np.uint8]:
        raw = pixels_from_bytes(item, self._shape)
        if raw is not None:
            return raw
        if isinstance(item, list) and len(item) == np.prod(self._shape) and item and not isinstance(item[0], list):
            return parse_pixels(item, (len(item),), "").reshape(self._shape)
        return read_image(item, self._image, "")
