"""Request cases: what a bundle says that a raw body is answered with, and whether it still is.

Invariant: text, labels, order and structure of an answer are exact; numbers may differ by the bundle's declared
tolerance, pixels of a picture by 1, and a state is compared as the numbers that it holds.
"""

import asyncio
import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from service.bundle import Manifest, RequestCase, SeriesTagger, Tolerance
from service.engine.runner import Runner, untimed_runner
from service.engine.sessions.model import Model
from service.engine.verification.parity import compare
from service.errors import BundleError, EkibenError
from service.tasks import TASKS
from service.tasks.body import describe, parse, pointer, wrong
from service.tasks.states import VERSION_BYTES

Path = tuple[str | int, ...]


async def answer(model: Model, runner: Runner, body: dict[str, Any]) -> dict[str, Any]:
    """What the endpoint of the model's task answers to `body`, as a JSON document. Raises EkibenError as it does."""
    task = TASKS[model.manifest.task]
    request = parse(task.request, body)
    if request.model != model.manifest.name:
        raise wrong("/model", repr(model.manifest.name), request.model)
    return await task.handle(model, runner, request, runner.new_context())


def answer_now(model: Model, body: dict[str, Any]) -> dict[str, Any]:
    """`answer` for callers without an event loop, on a runner of its own: what hangs there holds nobody else up."""
    runner = untimed_runner()
    try:
        return asyncio.run(answer(model, runner, body))
    finally:
        runner.close(timeout_s=0)


def replay_requests(model: Model, cases: Sequence[RequestCase]) -> None:
    """Answer every case; raises BundleError that names the case, the place in the answer, and both values."""
    where = f"{model.manifest.name}/{model.manifest.version}: requests.jsonl"
    for number, case in enumerate(cases):
        try:
            got = answer_now(model, case.request)
        except EkibenError as error:
            raise BundleError(f"{where}: case {number} is refused: {error.detail}") from error
        difference = compare_answers(case.answer, got, model.manifest)
        if difference is not None:
            raise BundleError(f"{where}: case {number}: {difference}")


def compare_answers(expected: dict[str, Any], got: dict[str, Any], manifest: Manifest) -> str | None:
    """The first place where two answers of a model differ, in words, or None.

    The version is left out: an answer that is stored in a bundle cannot hold the hash of that bundle.
    """
    return _difference({**expected, "version": ""}, {**got, "version": ""}, manifest, ())


def _difference(expected: Any, got: Any, manifest: Manifest, path: Path) -> str | None:
    match expected, got:
        case dict(), dict() if expected.keys() == got.keys():
            pairs: list[tuple[str | int, Any, Any]] = [(key, expected[key], got[key]) for key in expected]
        case list(), list() if len(expected) == len(got):
            pairs = [(i, a, b) for i, (a, b) in enumerate(zip(expected, got, strict=True))]
        case _:
            same = _same_leaf(expected, got, manifest, path)
            return None if same else f"{pointer(*path)}: expected {describe(expected)}, got {describe(got)}"
    found = (_difference(a, b, manifest, (*path, key)) for key, a, b in pairs)
    return next((difference for difference in found if difference is not None), None)


def _same_leaf(expected: Any, got: Any, manifest: Manifest, path: Path) -> bool:
    match path:
        case (*_, "probability"):
            return _within(expected, got, manifest.tolerance["probabilities"])
        case (*_, "logprob"):  # of two logits and their logarithm of a sum: twice as far
            return _within(expected, got, manifest.tolerance["logits"], times=2)
        case ("images", int()):
            a, b = (np.asarray(Pillow.open(BytesIO(base64.b64decode(text))), np.int16) for text in (expected, got))
            return a.shape == b.shape and int(np.abs(a - b).max()) <= 1
        case (*_, "state") if isinstance(manifest.parameters, SeriesTagger):
            pairs = zip(_state(expected, manifest), _state(got, manifest), strict=True)
            return all(
                compare(a, b, atol=manifest.tolerance[name].atol, rtol=manifest.tolerance[name].rtol).within
                for name, (a, b) in zip(("next_h", "next_c"), pairs, strict=True)
            )
        case _:
            return type(expected) is type(got) and bool(expected == got)


def _within(expected: Any, got: Any, tolerance: Tolerance, times: int = 1) -> bool:
    return bool(abs(got - expected) <= times * (tolerance.atol + tolerance.rtol * abs(expected)))


def _state(text: str, manifest: Manifest) -> npt.NDArray[np.float32]:
    """h and c, whatever version made them."""
    assert isinstance(manifest.parameters, SeriesTagger)
    numbers = base64.urlsafe_b64decode(text)[VERSION_BYTES:]
    return np.frombuffer(numbers, "<f4").reshape(2, manifest.parameters.layers, manifest.parameters.hidden)
