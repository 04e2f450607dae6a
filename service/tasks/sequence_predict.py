"""POST /sequence-predict: labels of texts or of series of numbers, one for each or one for each token or step."""

from typing import Any

from pydantic import ConfigDict, Field

from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import AnswerBody, JsonObject, RequestBody, check_unused_fields
from service.tasks.heads.predictions import LabelPrediction, TokensPrediction
from service.tasks.heads.ranking import TopK
from service.tasks.predict import predict_items
from service.tasks.readers import READERS

READER_FIELDS = ("texts", "truncate", "sequences", "states")
EXAMPLE: JsonObject = {
    "model": "news-lstm",
    "texts": ["Return a new list that contains all the words of a string, using sep as the delimiter."],
    "top_k": 2,
}


class SequencePredictRequest(RequestBody):
    """Texts for a text model; series of numbers for a series model."""

    texts: list[Any] | None = Field(
        default=None, description="for text models", json_schema_extra={"items": {"type": "string"}}
    )
    sequences: list[Any] | None = Field(
        default=None,
        description="for series models: each item is [steps][channels]; the number of steps may differ",
        json_schema_extra={"items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}},
    )
    states: list[Any] | None = Field(
        default=None,
        description="for stateful models: per sequence, the `state` of the answer that it continues, or null",
        json_schema_extra={"items": {"type": "string", "nullable": True}},
    )
    top_k: TopK = 3
    truncate: bool = Field(default=False, description="cut texts that are too long at the end instead of refusing them")

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})


class SequencePredictAnswer(AnswerBody):
    """One prediction per text or series, in order."""

    model: str
    version: str = Field(description="the version of the model that answered")
    predictions: list[LabelPrediction | TokensPrediction]


async def sequence_predict(
    model: Model, runner: Runner, request: SequencePredictRequest, context: RequestContext
) -> JsonObject:
    """Classify all texts or series of the request in one run; returns a `SequencePredictAnswer`."""
    reader = READERS[model.manifest.reader.kind]
    given, accepted = request.model_fields_set, {"model", reader.field, *reader.options(model.manifest), "top_k"}
    if not given <= accepted:
        unused = [name for name in READER_FIELDS if name not in accepted]
        check_unused_fields(unused, given, model.manifest, f"`{reader.field}`")
    return await predict_items(model, runner, vars(request), context)
