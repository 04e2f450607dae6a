"""POST /sequence-predict: classifies texts or series of numbers of variable length.

Invariant: rows are padded to the longest row of their request, and the model receives the length of each row, so an
answer does not depend on the padding. The service keeps no state between requests: clients send the state of a stateful
model with each request.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from service.bundle import Tensors
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.families import SeriesClassifier, SeriesTagger, TextClassifier
from service.manifest import Manifest
from service.tasks.body import AnswerBody, JsonObject, RequestBody
from service.tasks.codecs.series import pad_series, read_series
from service.tasks.codecs.states import pack_state, unpack_state
from service.tasks.codecs.texts import pad_ids, tokenize
from service.tasks.faults import fault, type_fault
from service.tasks.model_lookup import check_task
from service.tasks.ranking import Ranked, TopK, rank
from service.tasks.request_limits import check_items, check_unused_fields


class SequencePredictRequest(RequestBody):
    """Texts for a text model; series of numbers for a series model."""

    texts: list[Any] | None = Field(
        default=None, description="for text models", json_schema_extra={"items": {"type": "string"}}
    )
    sequences: list[Any] | None = Field(
        default=None,
        description="for series models: each item is [steps][channels]; the number of steps may differ",
        json_schema_extra={
            "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        },
    )
    states: list[Any] | None = Field(
        default=None,
        description="for stateful models: per sequence, the `state` of the answer that it continues, or null",
        json_schema_extra={"items": {"type": "string", "nullable": True}},
    )
    top_k: TopK = 3
    truncate: bool = Field(default=False, description="cut texts that are too long at the end instead of refusing them")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "news-lstm",
                "texts": ["Return a new list that contains all the words of a string, using sep as the delimiter."],
                "top_k": 2,
            }
        }
    )


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
    manifest = model.manifest
    check_task(manifest, "sequence-predict")
    match manifest.parameters:
        case TextClassifier() as parameters:
            inputs = await _read_texts(model, runner, parameters, request, context)
            tokens: list[int] | None = inputs["lengths"].tolist()
        case SeriesClassifier() | SeriesTagger() as parameters:
            inputs = _read_series(manifest, parameters, request)
            tokens = None
        case _:
            raise AssertionError(f"{manifest.parameters.family} does not belong to this task")
    if isinstance(parameters, SeriesTagger):
        return await _predict_stateful(model, runner, parameters, inputs, request, context=context)
    items = "/texts" if isinstance(parameters, TextClassifier) else "/sequences"
    outputs = await runner.run(model.session, inputs, ["probabilities"], context=context, items=items)
    ranked = rank(outputs["probabilities"], parameters.labels, request.top_k)
    predictions = [{**top[0], "top": top} for top in ranked]
    if tokens is not None:
        for prediction, count in zip(predictions, tokens, strict=True):
            prediction["tokens"] = count
    return _answer(manifest, predictions)


async def _predict_stateful(
    model: Model,
    runner: Runner,
    parameters: SeriesTagger,
    inputs: Tensors,
    request: SequencePredictRequest,
    *,
    context: RequestContext,
) -> JsonObject:
    state_B2LH = _read_states(model.manifest, parameters, request, len(inputs["lengths"]))
    outputs = await runner.run(
        model.session,
        {**inputs, "h": np.ascontiguousarray(state_B2LH[:, 0]), "c": np.ascontiguousarray(state_B2LH[:, 1])},
        ["probabilities", "next_h", "next_c"],
        context=context,
        items="/sequences",
    )
    predictions = []
    for i, length in enumerate(inputs["lengths"].tolist()):
        probabilities_TL = outputs["probabilities"][i, :length]
        top = rank(probabilities_TL[-1:], parameters.labels, request.top_k)[0]
        predictions.append(
            {
                **top[0],
                "top": top,
                "steps": [ranked for [ranked] in rank(probabilities_TL, parameters.labels, 1)],
                "state": pack_state(model.manifest, outputs["next_h"][i], outputs["next_c"][i]),
            }
        )
    return _answer(model.manifest, predictions)


def _answer(manifest: Manifest, predictions: list[JsonObject]) -> JsonObject:
    return {"model": manifest.name, "version": manifest.version, "predictions": predictions}


async def _read_texts(
    model: Model,
    runner: Runner,
    parameters: TextClassifier,
    request: SequencePredictRequest,
    context: RequestContext,
) -> Tensors:
    manifest = model.manifest
    check_unused_fields(["sequences", "states"], request.model_fields_set, manifest, "`texts`")
    if request.texts is None:
        raise fault("/texts", f"this field is required: {manifest.name} reads texts")
    check_items(request.texts, manifest, "/texts")
    assert model.tokenizer is not None, "every text model has a tokenizer"
    assert manifest.limits.max_steps is not None, "every text model has max_steps"
    rows = await tokenize(
        {f"/texts/{i}": text for i, text in enumerate(request.texts)},
        model.tokenizer,
        runner,
        context,
        vocabulary=parameters.vocabulary,
        max_steps=manifest.limits.max_steps,
        truncate=request.truncate,
    )
    ids_BT, lengths_B = pad_ids(rows)
    return {"ids": ids_BT, "lengths": lengths_B}


def _read_series(
    manifest: Manifest, parameters: SeriesClassifier | SeriesTagger, request: SequencePredictRequest
) -> Tensors:
    unused = ["texts", "truncate"] if isinstance(parameters, SeriesTagger) else ["texts", "truncate", "states"]
    check_unused_fields(unused, request.model_fields_set, manifest, "`sequences`")
    if request.sequences is None:
        raise fault("/sequences", f"this field is required: {manifest.name} reads series of numbers")
    check_items(request.sequences, manifest, "/sequences")
    rows = [
        read_series(row, channels=parameters.channels, max_steps=manifest.limits.max_steps, pointer=f"/sequences/{i}")
        for i, row in enumerate(request.sequences)
    ]
    series_BTC, lengths_B = pad_series(rows)
    return {"series": series_BTC, "lengths": lengths_B}


def _read_states(
    manifest: Manifest, parameters: SeriesTagger, request: SequencePredictRequest, num_items: int
) -> npt.NDArray[np.float32]:
    states = request.states if request.states is not None else [None] * num_items
    if len(states) != num_items:
        raise type_fault("/states", f"as many states as sequences ({num_items})", states)
    return np.stack([unpack_state(text, manifest, parameters, f"/states/{i}") for i, text in enumerate(states)])
