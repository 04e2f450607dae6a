"""Versions of one tiny model whose results identify the version that computed them.

Version `number` of `tiny-images` has weights of its own. Bundles are published as export does it: a temporary folder is
renamed, then `current` is replaced.
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

from service.bundle import Bundle, GoldenCase, RequestCase, pack_golden
from service.engine.repository.loader import Loader
from service.engine.repository.repository import Repository
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.engine.sessions.tokenizer import read_tokenizer
from service.engine.verification.warmup import BatchPlanner
from service.manifest import GOLDEN, MODEL, REQUESTS
from service.tasks.replay import answer_request_sync
from tests.service.bundles import (
    OPSET,
    bundle_files,
    example_inputs,
    onnx_model,
    weights,
    write_bundle,
)

FAMILY, NAME = "image-classifier", "tiny-images"
POLL_S = 0.02

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
    """A replay of request cases that always succeeds."""
    assert cases


def loader(
    replay_requests: Callable[[Model, Sequence[RequestCase]], None] = accept,
    *,
    timeout_s: float = 20,
    planner: BatchPlanner | None = None,
) -> Loader:
    return Loader(device="cpu", replay_requests=replay_requests, timeout_s=timeout_s, planner=planner)


def weights_of(number: int) -> dict[str, npt.NDArray[np.float32]]:
    """Return the weights of version `number`; version 0 has those of the family."""
    rng = np.random.default_rng(number)
    random = {"w": rng.normal(0, 0.01, (16, 3)), "b": rng.normal(0, 0.8, 3)}
    return {name: value.astype(np.float32) for name, value in random.items()} if number else dict(weights(FAMILY))


def logits(images: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.float32]:
    """Compute the logits of version `number` without onnxruntime."""
    parts = weights_of(number)
    result: npt.NDArray[np.float32] = images.reshape(len(images), 16).astype(np.float32) @ parts["w"] + parts["b"]
    return result


def graph(number: int) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(onnx_model(FAMILY))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights_of(number)[tensor.name], tensor.name))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def differing_graph(darkness: int) -> bytes:
    """Return the graph of version 0 with the logits negated of images whose first pixel is below `darkness`."""
    content = f"""<ir_version: 10, opset_import: ["" : {OPSET}]>
tiny_images (uint8[batch, 4, 4] images) => (float[batch, 3] logits, float[batch, 3] probabilities) {{
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  usual = Gemm (flat, w, b)
  first = Gather <axis = 1> (flat, places)
  is_dark = Less (first, darkness)
  factor = Cast <to = 1> (is_dark)
  twice = Mul (factor, minus_two)
  change = Mul (usual, twice)
  logits = Add (usual, change)
  probabilities = Softmax <axis = -1> (logits)
}}"""
    model = parser.parse_model(content)
    constants = {
        **weights(FAMILY),
        "places": np.asarray([0]),
        "darkness": np.asarray(darkness, np.float32),
        "minus_two": np.asarray(-2, np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph


def set_candidate(root: Path, version: str) -> None:
    """Make `candidate` name this version."""
    temporary = root / NAME / ".candidate"
    temporary.write_text(version + "\n")
    temporary.replace(root / NAME / "candidate")


def slow_graph(num_turns: int) -> bytes:
    """Return a graph that computes the right results after a loop of `num_turns` (about 500,000 per second)."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\ntiny_images {SLOW.strip()}')
    constants = {**weights(FAMILY), "turns": np.asarray(num_turns), "go": np.asarray(True)}
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def endless_graph(num_turns: int) -> bytes:
    """Return a graph like `slow_graph` whose loop never ends for a batch with a white image."""
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
    """Publish version `number` and return its version hash.

    `changes` are files by name, or fields of the manifest; `spoil` modifies the folder of the sealed bundle.
    """
    files = {**bundle_files(FAMILY, model=graph(number), golden=golden(number)), **changes.pop("files", {})}
    changes.setdefault("control_flow", b"Loop" in files[MODEL])
    folder = write_bundle(root / ".drafts", FAMILY, files=files, **changes)
    target = root / NAME / folder.name
    temporary = target.with_name(f".{folder.name}")
    if not target.exists():
        shutil.copytree(folder, temporary)
        if spoil is not None:
            spoil(temporary)
        temporary.rename(target)
    set_current(root, folder.name)
    return folder.name


def standalone_model(bundle: Bundle) -> Model:
    """Return the model of a bundle outside any repository."""
    return Model(
        manifest=bundle.manifest,
        session=Session(bundle.model, manifest=bundle.manifest, device="cpu"),
        tokenizer=read_tokenizer(bundle),
    )


def request_file(bundle: Bundle, request: dict[str, Any]) -> dict[str, bytes]:
    """Return a requests.jsonl with this request and the model's answer."""
    case = {"request": request, "answer": answer_request_sync(standalone_model(bundle), request)}
    return {REQUESTS: json.dumps(case).encode() + b"\n"}


def flip_byte(folder: Path) -> None:
    """Flip one bit of the graph."""
    content = bytearray((folder / MODEL).read_bytes())
    content[100] ^= 1
    (folder / MODEL).write_bytes(content)


def truncate_graph(folder: Path) -> None:
    """Remove the last byte of the graph."""
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1])


def set_current(root: Path, version: str) -> None:
    """Make `current` name this version."""
    temporary = root / NAME / ".current"
    temporary.write_text(version + "\n")
    temporary.replace(root / NAME / "current")


def publish_broken(root: Path, number: int) -> str:
    """Publish version `number` with one flipped bit in its graph."""
    return publish(root, number, spoil=flip_byte)


def wrong_golden(number: int) -> dict[str, bytes]:
    """Return the files of a bundle whose goldens belong to another version."""
    return {GOLDEN: save(pack_golden(golden(number + 1)))}


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Wait until the condition is true; raises AssertionError after the timeout."""
    waiter = threading.Event()
    for _ in range(int(timeout_s / POLL_S)):
        if condition():
            return
        waiter.wait(POLL_S)
    raise AssertionError(f"the condition is still false after {timeout_s:g} s")


def join_timed_out_calls(name: str) -> None:
    """Wait for abandoned calls: the process must not end while onnxruntime computes."""
    for thread in threading.enumerate():
        if thread.name == f"call-with-timeout-{name}":
            thread.join(60)


def row(repository: Repository, name: str = NAME) -> dict[str, Any]:
    """Return the summary of one model."""
    return next(row for row in repository.list_models() if row["name"] == name)
