"""POST /classify. Invariant: the model receives the pixels of the request unchanged; another image size is refused."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from service.contract.readers import ImageReader
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import AnswerBody, JsonObject, RequestBody, check_items
from service.tasks.codecs.images import decode_image, read_images
from service.tasks.ranking import Ranked, TopK, rank

EXAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAaUlEQVR42t2SUQ6AMAhDqyfjaHiyzpPVD2NkKMvip3xSXgvZgJ+WUZLs0XfdxYScXb/GrBdp0aRn"
    "4yjfYu+IkcaB5uWprDlQwsdl6sCkrV0g0AbL2KxperR84RJAbPASVPYNJHe0Nv+lDnIrTQRc7+xlAAAAAElFTkSuQmCC"
)
EXAMPLE: JsonObject = {"model": "mnist-cnn", "images": [EXAMPLE_PNG], "top_k": 3}


class ClassifyRequest(RequestBody):
    """Images for one model."""

    images: list[Any] = Field(
        description="each item is a base64 PNG or JPEG, or nested lists of pixels 0..255 ([height][width], or "
        "[height][width][3] for RGB), exactly of the model's size",
        json_schema_extra={"items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}},
    )
    top_k: TopK = 3

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})


class ClassPrediction(Ranked):
    """The prediction for one image."""

    top: list[Ranked]


class ClassifyAnswer(AnswerBody):
    """One prediction per image, in order."""

    model: str
    version: str = Field(description="the version of the model that answered")
    predictions: list[ClassPrediction]


async def classify(model: Model, runner: Runner, request: ClassifyRequest, context: RequestContext) -> JsonObject:
    """Classify all images of the request in one run; returns a `ClassifyAnswer`."""
    check_items(request.images, model.manifest, "/images")
    images = read_images(request.images, _reader(model), "/images")
    return await _classify_images(model, runner, images, request.top_k, context)


async def classify_upload(model: Model, runner: Runner, file: bytes, top_k: int, context: RequestContext) -> JsonObject:
    """Classify one PNG or JPEG that is the whole request body."""
    image = decode_image(file, _reader(model), "")
    return await _classify_images(model, runner, image[None], top_k, context)


def _reader(model: Model) -> ImageReader:
    assert isinstance(model.manifest.reader, ImageReader), "the only reader of this task"
    return model.manifest.reader


async def _classify_images(
    model: Model, runner: Runner, images: npt.NDArray[np.uint8], top_k: int, context: RequestContext
) -> JsonObject:
    outputs = await runner.run(model.session, {"images": images}, ["probabilities"], context=context, items="/images")
    ranked = rank(outputs["probabilities"], model.manifest.labels, top_k)
    return {
        "model": model.manifest.name,
        "version": model.manifest.version,
        "predictions": [{**top[0], "top": top} for top in ranked],
    }
