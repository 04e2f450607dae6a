"""POST /classify: pictures in, labels out.

Invariant: what is scored is the very pixels that were sent; any other size than the model's is refused, never scaled.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from service.bundle import ImageClassifier
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import Answer, Body, Document
from service.tasks.images import decode_picture, read_images
from service.tasks.limits import check_items, check_task
from service.tasks.ranking import Ranked, TopK, rank

A_SEVEN = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAaUlEQVR42t2SUQ6AMAhDqyfjaHiyzpPVD2NkKMvip3xSXgvZgJ+WUZLs0XfdxYScXb/GrBdp0aRn"
    "4yjfYu+IkcaB5uWprDlQwsdl6sCkrV0g0AbL2KxperR84RJAbPASVPYNJHe0Nv+lDnIrTQRc7+xlAAAAAElFTkSuQmCC"
)


class ClassifyRequest(Body):
    """Pictures for one model."""

    images: list[Any] = Field(
        description="each a base64 PNG or JPEG, or rows of pixels 0..255 ([height][width], or [height][width][3] for "
        "RGB); exactly of the model's size",
        json_schema_extra={"items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}},
    )
    top_k: TopK = 3

    model_config = ConfigDict(json_schema_extra={"example": {"model": "mnist-cnn", "images": [A_SEVEN], "top_k": 3}})


class ClassPrediction(Ranked):
    """What one picture shows."""

    top: list[Ranked]


class ClassifyAnswer(Answer):
    """One prediction for each picture, in order."""

    model: str
    version: str = Field(description="the version of the model that answered")
    predictions: list[ClassPrediction]


async def classify(model: Model, runner: Runner, request: ClassifyRequest, context: RequestContext) -> Document:
    """Score every picture of the request in one run; answers with a `ClassifyAnswer`."""
    parameters = _parameters(model)
    check_items(request.images, model.manifest, "/images")
    images = read_images(request.images, parameters.image, "/images")
    return await _score(model, runner, images, request.top_k, context)


async def classify_upload(
    model: Model, runner: Runner, content: bytes, top_k: int, context: RequestContext
) -> Document:
    """Score one PNG or JPEG that was sent as the body itself."""
    picture = decode_picture(content, _parameters(model).image, "")
    return await _score(model, runner, picture[None], top_k, context)


def _parameters(model: Model) -> ImageClassifier:
    check_task(model.manifest, "classify")
    assert isinstance(model.manifest.parameters, ImageClassifier), "the only family of this task"
    return model.manifest.parameters


async def _score(
    model: Model, runner: Runner, images: npt.NDArray[np.uint8], top_k: int, context: RequestContext
) -> Document:
    outputs = await runner.run(model.session, {"images": images}, ["probabilities"], context=context, items="/images")
    ranked = rank(outputs["probabilities"], _parameters(model).labels, top_k)
    return {
        "model": model.manifest.name,
        "version": model.manifest.version,
        "predictions": [{**top[0], "top": top} for top in ranked],
    }
