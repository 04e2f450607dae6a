"""The calls of the service: how each is written and how its answer is read."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from ekiben.client.attempts import HttpAnswer, ServiceCall
from ekiben.client.errors import EkibenClientError
from ekiben.client.payload import json_body, picture
from ekiben.client.tensors import HEADER_LENGTH, read_response, write_request
from ekiben.client.values import Completion, Completions, Images, Json, Predictions, Tensors

T = TypeVar("T")
STREAM_PATH = "/generate/stream"


def prediction(path: str, model: str, fields: Mapping[str, Any]) -> ServiceCall[Predictions]:
    body = {"model": model, **fields}
    if "images" in body:
        body["images"] = [picture(item) for item in body["images"]]
    return ServiceCall(path=path, body=json_body(body), parse=_predictions)


def text(
    model: str, prompt: str | Sequence[str], fields: Mapping[str, Any], path: str = "/generate"
) -> ServiceCall[Completions]:
    prompts = prompt if isinstance(prompt, str) else list(prompt)
    return ServiceCall(path=path, body=json_body({"model": model, "prompt": prompts, **fields}), parse=_completions)


def pictures(model: str, fields: Mapping[str, Any]) -> ServiceCall[Images]:
    return ServiceCall(path="/generate", body=json_body({"model": model, **fields}), parse=_images)


def inference(
    model: str, inputs: Mapping[str, Any], outputs: Sequence[str] | None, version: str | None
) -> ServiceCall[Tensors]:
    path = (
        f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "") + "/infer"
    )
    body, headers = write_request(inputs, outputs)
    return ServiceCall(path=path, body=body, headers=headers, parse=_tensors)


def models() -> ServiceCall[list[Json]]:
    return ServiceCall(
        method="GET", path="/models", headers={}, parse=lambda reply: list(json.loads(reply.body)["models"])
    )


def model(name: str) -> ServiceCall[Json]:
    return ServiceCall(method="GET", path=f"/models/{quote(name, safe='')}", headers={}, parse=_document)


def readiness() -> ServiceCall[bool]:
    return ServiceCall(method="GET", path="/readyz", headers={}, parse=lambda _: True, is_retried=False)


def max_items(document: Json) -> int:
    """Return how many items a request to the model may have."""
    return int(document["limits"]["max_items"])


def parsed(call: ServiceCall[T], reply: HttpAnswer) -> T:
    """Return what the answer says; raises EkibenClientError if it is none of the service's."""
    try:
        return call.parse(reply)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EkibenClientError(
            f"{call.path}: the answer of status {reply.status} cannot be read: {error!r}"
        ) from error


def _document(reply: HttpAnswer) -> Json:
    document: Json = json.loads(reply.body)
    return document


def _predictions(reply: HttpAnswer) -> Predictions:
    answer = json.loads(reply.body)
    return Predictions(model=answer["model"], version=answer["version"], predictions=answer["predictions"])


def _completions(reply: HttpAnswer) -> Completions:
    answer = json.loads(reply.body)
    completions = [
        Completion(
            text=each["text"], finish_reason=each["finish_reason"], tokens=each["tokens"], logprobs=each.get("logprobs")
        )
        for each in answer["completions"]
    ]
    return Completions(model=answer["model"], version=answer["version"], seed=answer["seed"], completions=completions)


def _images(reply: HttpAnswer) -> Images:
    answer = json.loads(reply.body)
    images = [base64.b64decode(each, validate=True) for each in answer["images"]]
    return Images(model=answer["model"], version=answer["version"], seed=answer["seed"], images=images)


def _tensors(reply: HttpAnswer) -> Tensors:
    return read_response(reply.body, int(reply.headers[HEADER_LENGTH]))
