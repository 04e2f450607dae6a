"""Replays the request cases of a bundle and compares the answers with the stored ones.

Invariant: text, labels, order and structure must match exactly. Numbers may differ by the tolerance of the bundle, also
the numbers in a state; pixels of an image may differ by 1. Whole numbers of an output are equal.
"""

import asyncio
import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from service.bundle import RequestCase
from service.engine.runner import Runner, untimed_runner
from service.engine.sessions.model import Model
from service.engine.verification.parity import compare
from service.errors import BundleError, EkibenError
from service.manifest import Manifest
from service.tasks import TASKS
from service.tasks.body import parse_request
from service.tasks.codecs.states import VERSION_BYTES
from service.tasks.faults import describe_value, json_pointer, type_fault
from service.tasks.openai.chat_template import check_template


async def answer_request(model: Model, runner: Runner, body: dict[str, Any]) -> dict[str, Any]:
    """Answer `body` like the endpoint of the model's task; raises the same EkibenError."""
    task = TASKS[model.manifest.task]
    request = parse_request(task.request, body)
    if request.model != model.manifest.name:
        raise type_fault("/model", repr(model.manifest.name), request.model)
    return await task.handle(model, runner, request, runner.new_context())


def answer_request_sync(model: Model, body: dict[str, Any]) -> dict[str, Any]:
    """Call `answer_request` without an event loop, on a separate runner: a hung model blocks no other request."""
    runner = untimed_runner()
    try:
        return asyncio.run(answer_request(model, runner, body))
    finally:
        runner.close(timeout_s=0)


def replay_requests(model: Model, cases: Sequence[RequestCase]) -> None:
    """Answer every case, and write a prompt with the chat template, if there is one.

    Raises BundleError that names the case, the JSON Pointer into the answer, and both values.
    """
    label = f"{model.manifest.name}/{model.manifest.version}: requests.jsonl"
    if template := getattr(model.manifest.head, "chat_template", None):
        try:
            check_template(template)
        except ValueError as error:
            raise BundleError(f"{model.manifest.name}/{model.manifest.version}: {error}") from error
    for number, case in enumerate(cases):
        try:
            got = answer_request_sync(model, case.request)
        except EkibenError as error:
            raise BundleError(f"{label}: case {number} is refused: {error.detail}") from error
        if difference := compare_answers(case.answer, got, model.manifest):
            raise BundleError(f"{label}: case {number}: {difference}")


def compare_answers(expected: dict[str, Any], got: dict[str, Any], manifest: Manifest) -> str | None:
    """Return the first difference between two answers of a model as a sentence, or None.

    The version is ignored: an answer that is stored in a bundle cannot contain the hash of that bundle.
    """
    return _difference({**expected, "version": ""}, {**got, "version": ""}, manifest, ())


def _difference(expected: Any, got: Any, manifest: Manifest, path: tuple[str | int, ...]) -> str | None:
    match expected, got:
        case dict(), dict() if expected.keys() == got.keys():
            pairs: list[tuple[str | int, Any, Any]] = [(key, expected[key], got[key]) for key in expected]
        case list(), list() if len(expected) == len(got):
            pairs = [(i, a, b) for i, (a, b) in enumerate(zip(expected, got, strict=True))]
        case _:
            if _leaves_match(expected, got, manifest, path):
                return None
            return f"{json_pointer(*path)}: expected {describe_value(expected)}, got {describe_value(got)}"
    differences = (_difference(a, b, manifest, (*path, key)) for key, a, b in pairs)
    return next((difference for difference in differences if difference is not None), None)


def _leaves_match(expected: Any, got: Any, manifest: Manifest, path: tuple[str | int, ...]) -> bool:
    if output := _output_of(path, expected, got):
        tolerance = manifest.tolerance[output]
        # A log probability is a logit minus the logarithm of a sum over logits, so the errors of both add up.
        factor = 2 if output == "logits" else 1
        return bool(abs(got - expected) <= factor * (tolerance.atol + tolerance.rtol * abs(expected)))
    match path:
        case ("images", int()) | ("predictions", int(), "image"):
            a, b = (np.asarray(Pillow.open(BytesIO(base64.b64decode(text))), np.int16) for text in (expected, got))
            return a.shape == b.shape and int(np.abs(a - b).max()) <= 1
        case (*_, "state"):
            return all(
                compare(a, b, atol=manifest.tolerance[name].atol, rtol=manifest.tolerance[name].rtol).within
                for name, a, b in zip(("next_h", "next_c"), _h_and_c(expected), _h_and_c(got), strict=True)
            )
        case _:
            return type(expected) is type(got) and bool(expected == got)


def _output_of(path: tuple[str | int, ...], expected: Any, got: Any) -> str | None:
    """Return the output whose tolerance holds for a number of an answer, or None for what must be equal."""
    match path:
        case ("predictions", int(), "outputs", str() as output, *_):
            return output if type(expected) is type(got) is float else None
        case ("predictions", int(), "values" | "embedding" as output, str() | int()):
            return output
        case (*_, "probability"):
            return "probabilities"
        case (*_, "logprob"):
            return "logits"
        case _:
            return None


def _h_and_c(text: str) -> npt.NDArray[np.float32]:
    """Return the numbers of a state of any version."""
    return np.frombuffer(base64.urlsafe_b64decode(text)[VERSION_BYTES:], "<f4").reshape(2, -1)
