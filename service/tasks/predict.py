"""POST /predict: what a model's reader takes becomes what its head answers. Other tasks share `predict_items`.

Invariant: an answer has one prediction for each item, in order, and a prediction does not depend on the other items of
its request. Items of different shapes are computed in different runs.
"""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError, Fault
from service.manifest import Manifest
from service.tasks.body import AnswerBody, JsonObject, RequestBody, check_unused_fields
from service.tasks.faults import MAX_FAULTS
from service.tasks.heads import HEADS
from service.tasks.heads.predictions import Prediction
from service.tasks.heads.ranking import TopK
from service.tasks.readers import READERS
from service.tasks.readers.image import EXAMPLE_PNG, read_file
from service.tasks.readers.payload import Fields, Group, Payload

# Outputs of this size take an event loop about a millisecond to write as lists; larger ones leave it.
MAX_INLINE_BYTES = 1 << 17
Threshold = Annotated[
    float | None,
    Field(ge=0, le=1, description="models of several labels: the lowest probability of a label in the answer"),
]
EXAMPLE: JsonObject = {"model": "mnist-cnn", "images": [EXAMPLE_PNG], "top_k": 3}


def _given(name: str) -> JsonObject:
    """The schema of an object with this field, which is absent if it is null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


class PredictRequest(RequestBody):
    """The items of one model, in the one field that its reader takes, and options of its head."""

    images: list[Any] | None = Field(
        default=None,
        description="models that read images: each item is a base64 PNG or JPEG, or nested lists of pixels 0..255",
        json_schema_extra={"items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}},
    )
    texts: list[Any] | None = Field(
        default=None, description="models that read texts", json_schema_extra={"items": {"type": "string"}}
    )
    sequences: list[Any] | None = Field(
        default=None,
        description="models that read series: each item is [steps][channels]; the number of steps may differ",
        json_schema_extra={"items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}},
    )
    states: list[Any] | None = Field(
        default=None,
        description="stateful models: per sequence, the `state` of the answer that it continues, or null",
        json_schema_extra={"items": {"type": "string", "nullable": True}},
    )
    rows: list[Any] | None = Field(
        default=None,
        description="models that read tables: each item maps every column to a number or a text",
        json_schema_extra={"items": {"type": "object"}},
    )
    tensors: dict[str, Any] | None = Field(
        default=None, description="models that read tensors: every input as nested lists, with its batch axis"
    )
    top_k: TopK = 3
    threshold: Threshold = None
    truncate: bool = Field(default=False, description="cut texts that are too long at the end instead of refusing them")

    model_config = ConfigDict(
        json_schema_extra={
            "example": EXAMPLE,
            "oneOf": [_given(reader.field) for reader in READERS.values()],
        }
    )


class PredictAnswer(AnswerBody):
    """One prediction per item, in order; its fields are those of the model's head."""

    model: str
    version: str = Field(description="the version of the model that answered")
    predictions: list[Prediction]


async def predict(model: Model, runner: Runner, request: PredictRequest, context: RequestContext) -> JsonObject:
    """Answer all items of the request; returns a `PredictAnswer`."""
    check_fields(request, model.manifest)
    return await predict_items(model, runner, vars(request), context)


async def predict_upload(
    model: Model, runner: Runner, content: bytes, fields: Fields, context: RequestContext
) -> JsonObject:
    """Answer one PNG or JPEG that is the whole request body; `fields` are the options of the head."""
    if model.manifest.reader.kind != "image":
        field = READERS[model.manifest.reader.kind].field
        detail = f"expected application/json with `{field}`: {model.manifest.name} reads no image files"
        raise EkibenError("unsupported-media-type", detail)
    payload = await read_file(model, runner, content, context)
    return _answer(model, await _predict_group(model, runner, payload.groups[0], payload, fields, context))


async def predict_items(model: Model, runner: Runner, fields: Fields, context: RequestContext) -> JsonObject:
    """Read the items of a request, compute and answer; `fields` are those of its body."""
    payload = await READERS[model.manifest.reader.kind].read(model, runner, fields, context)
    if len(payload.groups) == 1:
        return _answer(model, await _predict_group(model, runner, payload.groups[0], payload, fields, context))
    runs = [_predict_group(model, runner, group, payload, fields, context) for group in payload.groups]
    results = await asyncio.gather(*runs, return_exceptions=True)
    return _answer(model, _in_order(payload.groups, results))


def check_fields(request: RequestBody, manifest: Manifest) -> None:
    """Raise EkibenError if a request gives fields that the model does not use."""
    accepted = accepted_fields(manifest)
    unused = [name for name in type(request).model_fields if name not in {"model", *accepted}]
    check_unused_fields(unused, request.model_fields_set, manifest, ", ".join(f"`{name}`" for name in accepted))


def accepted_fields(manifest: Manifest) -> tuple[str, ...]:
    """Return the fields of POST /predict that a model uses: its items, then options."""
    reader, head = READERS[manifest.reader.kind], HEADS[manifest.head.kind]
    return (reader.field, *reader.options(manifest), *head.options(manifest))


def _answer(model: Model, predictions: list[JsonObject]) -> JsonObject:
    return {"model": model.manifest.name, "version": model.manifest.version, "predictions": predictions}


async def _predict_group(  # noqa: PLR0917
    model: Model, runner: Runner, group: Group, payload: Payload, fields: Fields, context: RequestContext
) -> list[JsonObject]:
    manifest, head = model.manifest, HEADS[model.manifest.head.kind]
    try:
        outputs = await runner.run(
            model.session, group.inputs, head.outputs(manifest), context=context, items=payload.pointer
        )
    except EkibenError as error:
        if not error.faults or (payload.is_list and len(payload.groups) == 1):
            raise
        raise _relocated(error, group, payload) from error
    num_bytes = 0
    for output in outputs.values():
        num_bytes += output.nbytes
    if num_bytes > MAX_INLINE_BYTES:
        predictions = await runner.call_host(head.answers, manifest, outputs, group, fields, context=context)
    else:
        predictions = head.answers(manifest, outputs, group, fields)
    if group.texts and manifest.head.kind != "token-labels":
        for prediction, text in zip(predictions, group.texts, strict=True):
            prediction["tokens"] = len(text.ids)
    return predictions


def _in_order(groups: Iterable[Group], results: Iterable[list[JsonObject] | BaseException]) -> list[JsonObject]:
    """Return the predictions of all groups in the order of their items; raises the errors of groups as one."""
    predictions: dict[int, JsonObject] = {}
    errors: list[BaseException] = []
    for group, result in zip(groups, results, strict=True):
        if isinstance(result, BaseException):
            errors.append(result)
        else:
            predictions.update(zip(group.items, result, strict=True))
    if errors:
        raise _merged(errors)
    return [predictions[item] for item in sorted(predictions)]


def _merged(errors: list[BaseException]) -> BaseException:
    """Return the first error, with the faults of all errors of its kind."""
    first = errors[0]
    if not isinstance(first, EkibenError) or not first.faults:
        return first
    same = [error for error in errors if isinstance(error, EkibenError) and error.slug == first.slug]
    faults = [fault for error in same for fault in error.faults]
    detail = first.detail if len(same) == 1 else "; ".join(error.detail for error in same[:MAX_FAULTS])
    return EkibenError(first.slug, detail, tuple(faults[:MAX_FAULTS]), retry_after_s=first.retry_after_s)


def _relocated(error: EkibenError, group: Group, payload: Payload) -> EkibenError:
    """Return the error of a run, whose faults point at rows of a group, with the places of the items instead."""
    faults = []
    for fault in error.faults:
        row = fault.pointer.removeprefix(f"{payload.pointer}/")
        if not row.isdigit():
            faults.append(fault)
        elif payload.is_list:
            faults.append(Fault(pointer=f"{payload.pointer}/{group.items[int(row)]}", detail=fault.detail))
        else:
            faults.append(Fault(pointer=payload.pointer, detail=f"item {row}: {fault.detail}"))
    listed = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults[:MAX_FAULTS])
    return EkibenError(error.slug, listed, tuple(faults), retry_after_s=error.retry_after_s)
