"""POST /classify: the most probable labels of images, or of rows of a table."""

from typing import Any

from pydantic import ConfigDict, Field

from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import AnswerBody, JsonObject, RequestBody, check_unused_fields
from service.tasks.heads.ranking import Ranked, TopK
from service.tasks.predict import predict_items, predict_upload
from service.tasks.readers import READERS
from service.tasks.readers.image import EXAMPLE_PNG

EXAMPLE: JsonObject = {"model": "mnist-cnn", "images": [EXAMPLE_PNG], "top_k": 3}
# By the field of the items, the fields of the other readers.
UNUSED_FIELDS = {"images": frozenset({"rows"}), "rows": frozenset({"images"})}


class ClassifyRequest(RequestBody):
    """Images or rows of a table for one model."""

    images: list[Any] | None = Field(
        default=None,
        description="models that read images: each item is a base64 PNG or JPEG, or nested lists of pixels 0..255 "
        "([height][width], or [height][width][3] for RGB), of a size that the model takes",
        json_schema_extra={"items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}},
    )
    top_k: TopK = 3
    rows: list[Any] | None = Field(
        default=None,
        description="models that read tables: each item maps every column to a number or a text",
        json_schema_extra={"items": {"type": "object"}},
    )

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})


class ClassPrediction(Ranked):
    """The prediction for one image or row."""

    top: list[Ranked]


class ClassifyAnswer(AnswerBody):
    """One prediction per image or row, in order."""

    model: str
    version: str = Field(description="the version of the model that answered")
    predictions: list[ClassPrediction]


async def classify(model: Model, runner: Runner, request: ClassifyRequest, context: RequestContext) -> JsonObject:
    """Classify all items of the request; returns a `ClassifyAnswer`."""
    field, given = READERS[model.manifest.reader.kind].field, request.model_fields_set
    if not UNUSED_FIELDS[field].isdisjoint(given):
        check_unused_fields(UNUSED_FIELDS[field], given, model.manifest, f"`{field}`")
    return await predict_items(model, runner, vars(request), context)


async def classify_upload(model: Model, runner: Runner, file: bytes, top_k: int, context: RequestContext) -> JsonObject:
    """Classify one PNG or JPEG that is the whole request body."""
    return await predict_upload(model, runner, file, {"top_k": top_k}, context)
