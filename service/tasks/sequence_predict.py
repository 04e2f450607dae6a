"""POST /sequence-predict: classifies texts or series of numbers of variable length.

Invariant: rows are padded to the longest row of their request, and the model receives the length of each row, so an
answer does not depend on the padding. The service keeps no state: clients send that of a stateful model.
"""

from typing import Any

import numpy as np
from pydantic import ConfigDict, Field

from service.bundle import Tensors
from service.contract.readers import SeriesReader, TextReader
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.manifest import Manifest
from service.tasks.body import AnswerBody, JsonObject, RequestBody, check_items, check_unused_fields
from service.tasks.codecs.series import pad_rows, read_series
from service.tasks.codecs.states import pack_state, unpack_state
from service.tasks.codecs.texts import tokenize
from service.tasks.faults import fault, type_fault
from service.tasks.ranking import Ranked, TopK, rank

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


class SequencePrediction(Ranked):
    """The prediction for one text or series; for a stateful model, the prediction after the last step."""

    top: list[Ranked]
    tokens: int | None = Field(default=None, description="text models: number of tokens in the text")
    steps: list[Ranked] | None = Field(default=None, description="stateful models: the prediction after each step")
    state: str | None = Field(default=None, description="stateful models: send it with the next steps to continue")


class SequencePredictAnswer(AnswerBody):
    """One prediction per text or series, in order."""

    model: str
    version: str = Field(description="the version of the model that answered")
    predictions: list[SequencePrediction]


async def sequence_predict(
    model: Model, runner: Runner, request: SequencePredictRequest, context: RequestContext
) -> JsonObject:
    """Classify all texts or series of the request in one run; returns a `SequencePredictAnswer`."""
    manifest, reader = model.manifest, model.manifest.reader
    if isinstance(reader, TextReader):
        inputs, items = await _read_texts(model, runner, request, context), "/texts"
    else:
        assert isinstance(reader, SeriesReader), "the other reader of this task"
        inputs, items = _read_series(manifest, reader, request), "/sequences"
    is_stateful = isinstance(reader, SeriesReader) and reader.state is not None
    names = ["probabilities", "next_h", "next_c"] if is_stateful else ["probabilities"]
    outputs = await runner.run(model.session, inputs, names, context=context, items=items)
    probabilities, lengths_B = outputs["probabilities"], inputs["lengths"]
    # A stateful model predicts after each step.
    last_BL = probabilities[np.arange(len(lengths_B)), lengths_B - 1] if is_stateful else probabilities
    predictions: list[JsonObject] = [{**top[0], "top": top} for top in rank(last_BL, manifest.labels, request.top_k)]
    if items == "/texts":
        for prediction, length in zip(predictions, lengths_B.tolist(), strict=True):
            prediction["tokens"] = length
    elif is_stateful:
        for i, length in enumerate(lengths_B.tolist()):
            steps = rank(probabilities[i, :length], manifest.labels, 1)
            predictions[i]["steps"] = [ranked for [ranked] in steps]
            predictions[i]["state"] = pack_state(manifest, outputs["next_h"][i], outputs["next_c"][i])
    return {"model": manifest.name, "version": manifest.version, "predictions": predictions}


async def _read_texts(
    model: Model, runner: Runner, request: SequencePredictRequest, context: RequestContext
) -> Tensors:
    check_unused_fields(["sequences", "states"], request.model_fields_set, model.manifest, "`texts`")
    if request.texts is None:
        raise fault("/texts", f"this field is required: {model.manifest.name} reads texts")
    check_items(request.texts, model.manifest, "/texts")
    texts = {f"/texts/{i}": text for i, text in enumerate(request.texts)}
    ids_BT, lengths_B = pad_rows(await tokenize(texts, model, runner, context, truncate=request.truncate), np.int64)
    return {"ids": ids_BT, "lengths": lengths_B}


def _read_series(manifest: Manifest, reader: SeriesReader, request: SequencePredictRequest) -> Tensors:
    unused = ["texts", "truncate", "states"]
    if reader.state is not None:
        unused.remove("states")
    check_unused_fields(unused, request.model_fields_set, manifest, "`sequences`")
    if request.sequences is None:
        raise fault("/sequences", f"this field is required: {manifest.name} reads series of numbers")
    check_items(request.sequences, manifest, "/sequences")
    channels = reader.channels
    rows = [
        read_series(row, manifest, channels=channels, pointer=f"/sequences/{i}")
        for i, row in enumerate(request.sequences)
    ]
    series_BTC, lengths_B = pad_rows(rows, np.float32, channels)
    inputs: Tensors = {"series": series_BTC, "lengths": lengths_B}
    if reader.state is None:
        return inputs
    states = request.states if request.states is not None else [None] * len(rows)
    if len(states) != len(rows):
        raise type_fault("/states", f"as many states as sequences ({len(rows)})", states)
    state_B2LH = np.stack([unpack_state(text, manifest, reader.state, f"/states/{i}") for i, text in enumerate(states)])
    return {**inputs, "h": np.ascontiguousarray(state_B2LH[:, 0]), "c": np.ascontiguousarray(state_B2LH[:, 1])}
