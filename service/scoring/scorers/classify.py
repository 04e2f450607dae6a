"""Pictures: pixels as they are, or encoded; a column that already holds pixels is never touched row by row."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.families import ImageClassifier
from service.scoring.rows import Rows
from service.scoring.scorers.items import each, pixel_block, plain, raw_pixels, split, values
from service.scoring.scorers.scored import Scored, ranked, run
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

    def score(self, rows: Rows) -> Scored:
        images, kept, faults = self._read(rows)
        if not len(images):
            return Scored(kept=[], columns=ranked(self._none(), self._labels, self._top_k)["columns"], faults=faults)
        probabilities = run(self._model, "images", images, "probabilities")
        return Scored(kept=kept, faults=faults, **ranked(probabilities, self._labels, self._top_k))

    def close(self) -> None:
        """Nothing to close."""

    def _read(self, rows: Rows) -> tuple[npt.NDArray[np.uint8], Any, dict[int, str]]:
        column = plain(rows.columns[self._column])
        block = pixel_block(column, self._shape) if not rows.faults else None
        if block is not None:
            return block, np.arange(len(block)), {}
        found = each(self._read_one, values(column))
        kept, faults = split(found, rows.faults, self._column)
        good = [image for image in (found[i] for i in kept) if not isinstance(image, EkibenError)]
        return (np.stack(good) if good else np.zeros((0, *self._shape), np.uint8)), kept, faults

    def _read_one(self, item: Any) -> npt.NDArray[np.uint8]:
        raw = raw_pixels(item, self._shape)
        if raw is not None:
            return raw
        if isinstance(item, list) and len(item) == np.prod(self._shape) and item and not isinstance(item[0], list):
            return parse_pixels(item, (len(item),), "").reshape(self._shape)
        return read_image(item, self._image, "")

    def _none(self) -> npt.NDArray[np.float32]:
        return np.zeros((0, len(self._labels)), np.float32)
