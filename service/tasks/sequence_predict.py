"""POST /sequence-predict: texts or series of numbers of any length up to a limit in, labels out.

Invariant: rows are padded only to the longest of their own request and their lengths go with them, so an answer does
not depend on the padding. A stateful model keeps nothing between requests: its state travels with the client.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from service.bundle import Manifest, SeriesClassifier, SeriesTagger, Tensors, TextClassifier
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import Answer, Body, Document, refuse, wrong
from service.tasks.limits import check_items, check_task, check_unused
from service.tasks.ranking import Ranked, TopK, rank
from service.tasks.series import pad_series, read_series
from service.tasks.states import pack_state, unpack_state
from service.tasks.texts import pad_ids, tokenize


class SequencePredictRequest(Body):
    """Texts for a text model; series of numbers for the others."""

    texts: list[Any] | None = Field(
        default=None, description="for text models", json_schema_extra={"items": {"type": "string"}}
    )
    sequences: list[Any] | None = Field(
        default=None,
        description="for series models: each [steps][channels], the steps may differ",
        json_schema_extra={
            "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        },
    )
    states: list[Any] | None = Field(
        default=None,
        description="for the stateful model: for each sequence the `state` of the answer that it continues, or null",
        json_schema_extra={"items": {"type": "string", "nullable": True}},
    )
    top_k: TopK = 3
    truncate: bool = Field(
        default=False, description="cut texts that are too long at their end, rather than refuse them"
    )

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
    """What one text or series is; for the stateful model after its last step, and after each."""

    top: list[Ranked]
    tokens: int | None = Field(default=None, description="text models: how many tokens were read")
    steps: list[Ranked] | None = Field(default=None, description="stateful model: the answer after each step")
    state: str | None = Field(default=None, description="stateful model: send it back to continue")


class SequencePredictAnswer(Answer):
    """One prediction for each text or series, in order."""

    model: str
    version: str = Field(description="the version of the model that answered")
    predictions: list[SequencePrediction]


async def sequence_predict(
    model: Model, runner: Runner, request: SequencePredictRequest, context: RequestContext
) -> Document:
    """Score every text or series of the request in one run; answers with a `SequencePredictAnswer`."""
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
            raise AssertionError(f"{manifest.parameters.family} is no family of this task")
    if isinstance(parameters, SeriesTagger):
        return await _tag(model, runner, parameters, inputs, request, context)
    items = "/texts" if isinstance(parameters, TextClassifier) else "/sequences"
    outputs = await runner.run(model.session, inputs, ["probabilities"], context=context, items=items)
    ranked = rank(outputs["probabilities"], parameters.labels, request.top_k)
    predictions = [{**top[0], "top": top} for top in ranked]
    if tokens is not None:
        for prediction, count in zip(predictions, tokens, strict=True):
            prediction["tokens"] = count
    return _answer(manifest, predictions)


async def _tag(
    model: Model,
    runner: Runner,
    parameters: SeriesTagger,
    inputs: Tensors,
    request: SequencePredictRequest,
    context: RequestContext,
) -> Document:
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
                "steps": [best for [best] in rank(probabilities_TL, parameters.labels, 1)],
                "state": pack_state(model.manifest, outputs["next_h"][i], outputs["next_c"][i]),
            }
        )
    return _answer(model.manifest, predictions)


def _answer(manifest: Manifest, predictions: list[Document]) -> Document:
    return {"model": manifest.name, "version": manifest.version, "predictions": predictions}


async def _read_texts(
    model: Model,
    runner: Runner,
    parameters: TextClassifier,
    request: SequencePredictRequest,
    context: RequestContext,
) -> Tensors:
    manifest = model.manifest
    check_unused(["sequences", "states"], request.model_fields_set, manifest, "`texts`")
    if request.texts is None:
        raise refuse("/texts", f"this field is required: {manifest.name} reads texts")
    check_items(request.texts, manifest, "/texts")
    assert model.tokenizer is not None, "a text model has one"
    assert manifest.limits.max_steps is not None, "a text model has a limit"
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
    check_unused(unused, request.model_fields_set, manifest, "`sequences`")
    if request.sequences is None:
        raise refuse("/sequences", f"this field is required: {manifest.name} reads series of numbers")
    check_items(request.sequences, manifest, "/sequences")
    rows = [
        read_series(row, channels=parameters.channels, max_steps=manifest.limits.max_steps, where=f"/sequences/{i}")
        for i, row in enumerate(request.sequences)
    ]
    series_BTC, lengths_B = pad_series(rows)
    return {"series": series_BTC, "lengths": lengths_B}


def _read_states(
    manifest: Manifest, parameters: SeriesTagger, request: SequencePredictRequest, num_items: int
) -> npt.NDArray[np.float32]:
    states = request.states if request.states is not None else [None] * num_items
    if len(states) != num_items:
        raise wrong("/states", f"as many states as sequences ({num_items})", states)
    return np.stack([unpack_state(text, manifest, parameters, f"/states/{i}") for i, text in enumerate(states)])
