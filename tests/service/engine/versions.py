"""Versions of one tiny model whose answers tell which version made them.

Version `number` of `tiny-images` has weights of its own. Bundles are put in place as export does it: a folder beside,
renamed, then `current` replaced.
"""

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, parser
from safetensors.numpy import save

from service.bundle import GOLDEN, MODEL, REQUESTS, Bundle, GoldenCase, RequestCase, pack_golden
from service.engine.repository.repository import Repository
from service.engine.sessions.model import Model, read_tokenizer
from service.engine.sessions.session import Session
from service.tasks.replay import answer_now
from tests.service.bundles import (
    OPSET,
    bundle_files,
    example_inputs,
    onnx_model,
    weights,
    write_bundle,
)

FAMILY, NAME = "image-classifier", "tiny-images"
TICK_S = 0.02

ENDLESS = """
(uint8[batch, 4, 4] images) => (float[batch, 3] logits, float[batch, 3] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  start = Gemm (flat, w, b)
  darkest = ReduceMin <keepdims = 0> (flat)
  is_white = Equal (darkest, white)
  number = Cast <to = 7> (is_white)
  many = Mul (number, lots)
  turns = Add (many, one)
  logits = Loop (turns, go, start) <body = turn (int64 i, bool more, float[batch, 3] seen)
    => (bool again, float[batch, 3] kept) { again = Identity (more)  kept = Identity (seen) }>
  probabilities = Softmax <axis = -1> (logits)
}"""
SLOW = """
(uint8[batch, 4, 4] images) => (float[batch, 3] logits, float[batch, 3] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  start = Gemm (flat, w, b)
  logits = Loop (turns, go, start) <body = turn (int64 i, bool more, float[batch, 3] seen)
    => (bool again, float[batch, 3] kept) { again = Identity (more)  kept = Identity (seen) }>
  probabilities = Softmax <axis = -1> (logits)
}"""


def accept(model: Model, cases: Sequence[RequestCase]) -> None:
    """Replay of requests that finds nothing wrong."""
    assert cases


def weights_of(number: int) -> dict[str, npt.NDArray[np.float32]]:
    """0 has those of the family."""
    rng = np.random.default_rng(number)
    drawn = {"w": rng.normal(0, 0.01, (16, 3)), "b": rng.normal(0, 0.8, 3)}
    return {name: value.astype(np.float32) for name, value in drawn.items()} if number else dict(weights(FAMILY))


def logits(images: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.float32]:
    """What version `number` answers, without onnxruntime."""
    own = weights_of(number)
    answer: npt.NDArray[np.float32] = images.reshape(len(images), 16).astype(np.float32) @ own["w"] + own["b"]
    return answer


def graph(number: int) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(onnx_model(FAMILY))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights_of(number)[tensor.name], tensor.name))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def slow_graph(num_turns: int) -> bytes:
    """The right answers after a loop of so many turns (some 500,000 a second)."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\ntiny_images {SLOW.strip()}')
    constants = {**weights(FAMILY), "turns": np.asarray(num_turns), "go": np.asarray(True)}
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def endless_graph(num_turns: int) -> bytes:
    """The right answers after a loop of so many turns; for a batch with a white image it never ends."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\ntiny_images {ENDLESS.strip()}')
    constants = {
        **weights(FAMILY),
        "one": np.asarray(num_turns),
        "go": np.asarray(True),
        "white": np.asarray(255, np.float32),
        "lots": np.asarray(1 << 50),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def golden(number: int) -> tuple[GoldenCase, ...]:
    cases = []
    for batch in (1, 3):
        images = example_inputs(FAMILY, batch=batch, seed=batch)["images"]
        scores = logits(images, number)
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        cases.append(GoldenCase(inputs={"images": images}, outputs={"logits": scores, "probabilities": probabilities}))
    return tuple(cases)


def publish(root: Path, number: int, *, spoil: Callable[[Path], None] | None = None, **changes: Any) -> str:
    """Put version `number` in place; returns the version.

    `changes` are files by name, or fields of the manifest; `spoil` is done to the sealed bundle's folder.
    """
    files = {**bundle_files(FAMILY, model=graph(number), golden=golden(number)), **changes.pop("files", {})}
    folder = write_bundle(root / ".drafts", FAMILY, files=files, **changes)
    target = root / NAME / folder.name
    draft = target.with_name(f".{folder.name}")
    if not target.exists():
        shutil.copytree(folder, draft)
        if spoil is not None:
            spoil(draft)
        draft.rename(target)
    point(root, folder.name)
    return folder.name


def alone(bundle: Bundle) -> Model:
    """The model of a bundle, served by nobody."""
    return Model(
        manifest=bundle.manifest,
        session=Session(bundle.model, manifest=bundle.manifest, device="cpu"),
        tokenizer=read_tokenizer(bundle),
    )


def request_file(bundle: Bundle, request: dict[str, Any]) -> dict[str, bytes]:
    """requests.jsonl with this request and what the model answers to it."""
    case = {"request": request, "answer": answer_now(alone(bundle), request)}
    return {REQUESTS: json.dumps(case).encode() + b"\n"}


def flip_byte(folder: Path) -> None:
    """One bit of the graph."""
    content = bytearray((folder / MODEL).read_bytes())
    content[100] ^= 1
    (folder / MODEL).write_bytes(content)


def cut_off(folder: Path) -> None:
    """The last byte of the graph is missing."""
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1])


def point(root: Path, version: str) -> None:
    """Let `current` name this version."""
    draft = root / NAME / ".current"
    draft.write_text(version + "\n")
    draft.replace(root / NAME / "current")


def publish_broken(root: Path, number: int) -> str:
    """Version `number` with one flipped bit in its graph."""
    return publish(root, number, spoil=flip_byte)


def wrong_golden(number: int) -> dict[str, bytes]:
    """Files of a bundle whose goldens are another version's."""
    return {GOLDEN: save(pack_golden(golden(number + 1)))}


def until(happened: Callable[[], bool], *, bound_s: float = 60.0) -> None:
    """Return when it happened; an AssertionError if it does not."""
    waiter = threading.Event()
    for _ in range(int(bound_s / TICK_S)):
        if happened():
            return
        waiter.wait(TICK_S)
    raise AssertionError("it never happened")


def let_finish(name: str) -> None:
    """Wait for the threads of `bounded` that were given up: a process must not end while onnxruntime computes."""
    for thread in threading.enumerate():
        if thread.name == f"bounded-{name}":
            thread.join(60)


def row(repository: Repository, name: str = NAME) -> dict[str, Any]:
    return next(row for row in repository.describe() if row["name"] == name)
