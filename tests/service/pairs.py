"""Tiny bundles of pairs of reader and head that format 1 did not have, with real graphs and random, fixed weights."""

import functools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import parser
from safetensors.numpy import save
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from service.bundle import Bundle, GoldenCase, RequestCase, open_bundle, pack_golden
from service.engine.sessions.model import Model, create_model
from service.engine.sessions.session import Session
from service.manifest import GOLDEN, MODEL, REQUESTS, TOKENIZER
from service.tasks.replay import answer_request_sync
from tests.service.bundles import OPSET, manifest_fields, write_bundle

Array = npt.NDArray[Any]
WORDS = ("[UNK]", "[CLS]", "[SEP]", "ann", "lives", "in", "rome", "and", "bob", "works", "at", "acme")
COLUMNS = (
    {"kind": "number", "name": "age", "low": 0, "high": 120},
    {"kind": "category", "name": "city", "values": ("rome", "oslo", "lima")},
    {"kind": "number", "name": "height", "low": 0.5, "high": 2.5},
)
PHOTO_RESIZE = {"shortest_edge": 6, "crop": (4, 6), "resample": "bicubic"}
AXES = {"height": {"min": 3, "max": 12}, "width": {"min": 3, "max": 10}}

TABLE_LABELS = """
(float[batch, 2] numbers, int64[batch, 1] categories) => (float[batch, 3] probabilities) {
  cities = Gather (embedding, categories)
  city = Flatten (cities)
  all = Concat <axis = 1> (numbers, city)
  logits = Gemm (all, w, b)
  probabilities = Softmax <axis = -1> (logits)
}"""
TABLE_VALUES = """
(float[batch, 2] numbers, int64[batch, 1] categories) => (float[batch, 2] values) {
  cities = Gather (embedding, categories)
  city = Flatten (cities)
  all = Concat <axis = 1> (numbers, city)
  values = Gemm (all, w, b)
}"""
IMAGE_MULTILABEL = """
(uint8[batch, 4, 4] images) => (float[batch, 5] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  logits = Gemm (flat, w, b)
  probabilities = Sigmoid (logits)
}"""
PHOTO_LABELS = """
(uint8[batch, 4, 6, 3] images) => (float[batch, 3] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  logits = Gemm (flat, w, b)
  probabilities = Softmax <axis = -1> (logits)
}"""
IMAGE_MASK = """
(uint8[batch, height, width] images) => (float[batch, height, width] levels, uint8[batch, height, width] new_images) {
  pixels = Cast <to = 1> (images)
  pixels_bchw = Unsqueeze (pixels, one)
  blurred = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (pixels_bchw, w)
  levels = Squeeze (blurred, one)
  bounded = Clip (levels, low, high)
  rounded = Round (bounded)
  new_images = Cast <to = 2> (rounded)
}"""
IMAGE_TENSORS = """
(uint8[batch, height, width, 3] images) => (float[batch, 2, 4] boxes, float[batch, height, width] scores) {
  pixels = Cast <to = 1> (images)
  pixels_bchw = Transpose <perm = [0, 3, 1, 2]> (pixels)
  features = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (pixels_bchw, w)
  means = GlobalAveragePool (features)
  flat = Flatten (means)
  boxes = Reshape (flat, box_shape)
  planes = Slice (features, zero, one, one)
  scores = Squeeze (planes, one)
}"""
TEXT_EMBEDDING = """
(int64[batch, steps] ids, int64[batch] lengths) => (float[batch, 5] embedding) {
  ids_tb = Transpose <perm = [1, 0]> (ids)
  x_tbi = Gather (table, ids_tb)
  valid = Cast <to = 6> (lengths)
  all, last = RNN <hidden_size = 3> (x_tbi, w, r, b, valid)
  state = Squeeze (last, zero)
  embedding = MatMul (state, head)
}"""
TEXT_TOKENS = """
(int64[batch, steps] ids, int64[batch] lengths) => (float[batch, steps, 3] probabilities) {
  ids_tb = Transpose <perm = [1, 0]> (ids)
  x_tbi = Gather (table, ids_tb)
  valid = Cast <to = 6> (lengths)
  all, last = RNN <hidden_size = 3> (x_tbi, w, r, b, valid)
  y_tbh = Squeeze (all, one)
  y_bth = Transpose <perm = [1, 0, 2]> (y_tbh)
  logits = MatMul (y_bth, head)
  probabilities = Softmax <axis = -1> (logits)
}"""
SERIES_VALUES = """
(float[batch, steps, 2] series, int64[batch] lengths) => (float[batch, 1] values) {
  x_tbi = Transpose <perm = [1, 0, 2]> (series)
  valid = Cast <to = 6> (lengths)
  all, last = RNN <hidden_size = 3> (x_tbi, w, r, b, valid)
  state = Squeeze (last, zero)
  values = MatMul (state, head)
}"""
SERIES_STEPS = """
(float[batch, steps, 2] series, int64[batch] lengths) => (float[batch, steps, 3] probabilities) {
  x_tbi = Transpose <perm = [1, 0, 2]> (series)
  valid = Cast <to = 6> (lengths)
  all, last = RNN <hidden_size = 3> (x_tbi, w, r, b, valid)
  y_tbh = Squeeze (all, one)
  y_bth = Transpose <perm = [1, 0, 2]> (y_tbh)
  logits = MatMul (y_bth, head)
  probabilities = Softmax <axis = -1> (logits)
}"""
TENSORS = """
(float[batch, 2] points, int64[batch] weights) => (float[batch, 2] moved, int64[batch] doubled) {
  mixed = MatMul (points, w)
  factors = Cast <to = 1> (weights)
  factors_b1 = Unsqueeze (factors, one)
  moved = Mul (mixed, factors_b1)
  doubled = Add (weights, weights)
}"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A model of one pair: `examples(rng, batch)` draws inputs, `fields` are those of a valid request."""

    reader: Mapping[str, Any]
    head: Mapping[str, Any]
    graph: str
    weights: Callable[[Callable[..., Array]], Mapping[str, Array]]
    examples: Callable[[np.random.Generator, int], dict[str, Array]]
    fields: Mapping[str, Any]
    limits: Mapping[str, Any] = field(default_factory=lambda: {"max_items": 8})
    is_recurrent: bool = False


def whole(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def _rows(rng: np.random.Generator, batch: int) -> dict[str, Array]:
    numbers = np.stack([rng.uniform(0, 120, batch), rng.uniform(0.5, 2.5, batch)], axis=1).astype(np.float32)
    return {"numbers": numbers, "categories": rng.integers(0, 3, (batch, 1))}


def _table_weights(normal: Callable[..., Array], size: int) -> Mapping[str, Array]:
    w = normal(6, size)
    w[0] /= 50
    return {"embedding": normal(3, 4), "w": w, "b": normal(size)}


def _pixels(*shape: int) -> Callable[[np.random.Generator, int], dict[str, Array]]:
    return lambda rng, batch: {"images": rng.integers(0, 256, (batch, *shape), dtype=np.uint8)}


def _texts(rng: np.random.Generator, batch: int) -> dict[str, Array]:
    lengths = rng.integers(3, 7, batch)
    lengths[rng.integers(batch)] = 6
    return {"ids": rng.integers(0, len(WORDS), (batch, 6)), "lengths": lengths}


def _series(rng: np.random.Generator, batch: int) -> dict[str, Array]:
    lengths = rng.integers(1, 6, batch)
    lengths[rng.integers(batch)] = 5
    return {"series": rng.normal(size=(batch, 5, 2)).astype(np.float32), "lengths": lengths}


def _recurrent(normal: Callable[..., Array], inputs: int, outputs: int) -> dict[str, Array]:
    cells = {"w": normal(1, 3, inputs), "r": normal(1, 3, 3), "b": normal(1, 6)}
    return {**cells, "head": normal(3, outputs), "zero": whole(0), "one": whole(1)}


def _without(weights: Mapping[str, Array], name: str) -> Mapping[str, Array]:
    return {key: value for key, value in weights.items() if key != name}


ROW = {"age": 41, "city": "oslo", "height": 1.8}
GREY = [[[17 * (row + column) for column in range(4)] for row in range(4)], [[255] * 4] * 4]
TEXT = {"kind": "text", "vocabulary": len(WORDS)}
TEXTS = ["ann lives in rome", "bob works"]
SERIES = {"kind": "series", "channels": 2}
SEQUENCES = [[[0.1, 0.2], [0.3, 0.4]], [[1.0, -1.0]]]
STEPS = {"max_items": 8, "max_steps": 8}
FREE = {"kind": "image", "height": None, "width": None}

PAIRS: Mapping[str, Pair] = {
    "tiny-customers": Pair(
        reader={"kind": "table", "columns": COLUMNS},
        head={"kind": "labels", "labels": ("stays", "leaves", "unsure")},
        graph=TABLE_LABELS,
        weights=lambda normal: _table_weights(normal, 3),
        examples=_rows,
        fields={"rows": [ROW, {"age": 7.5, "city": "lima", "height": 1.25}], "top_k": 2},
    ),
    "tiny-prices": Pair(
        reader={"kind": "table", "columns": COLUMNS},
        head={"kind": "values", "names": ("rent", "area"), "units": ("EUR", "m²")},
        graph=TABLE_VALUES,
        weights=lambda normal: _table_weights(normal, 2),
        examples=_rows,
        fields={"rows": [ROW]},
    ),
    "tiny-scenes": Pair(
        reader={"kind": "image", "height": 4, "width": 4, "mode": "L"},
        head={"kind": "multilabel", "labels": ("sea", "sky", "sun", "sand", "ship"), "threshold": 0.4},
        graph=IMAGE_MULTILABEL,
        weights=lambda normal: {"w": normal(16, 5, scale=0.01), "b": normal(5)},
        examples=_pixels(4, 4),
        fields={"images": GREY},
    ),
    "tiny-photos": Pair(
        reader={"kind": "image", "height": 4, "width": 6, "mode": "RGB", "resize": PHOTO_RESIZE},
        head={"kind": "labels", "labels": ("dog", "cat", "owl")},
        graph=PHOTO_LABELS,
        weights=lambda normal: {"w": normal(72, 3, scale=0.001), "b": normal(3, scale=0.1)},
        examples=_pixels(4, 6, 3),
        fields={"images": [[[[9 * row, 7 * column, 50] for column in range(20)] for row in range(11)]]},
    ),
    "tiny-vectors": Pair(
        reader=TEXT,
        head={"kind": "embedding", "size": 5, "normalized": False},
        graph=TEXT_EMBEDDING,
        weights=lambda normal: {"table": normal(len(WORDS), 4), **_without(_recurrent(normal, 4, 5), "one")},
        examples=_texts,
        fields={"texts": TEXTS},
        limits=STEPS,
        is_recurrent=True,
    ),
    "tiny-names": Pair(
        reader=TEXT,
        head={"kind": "token-labels", "labels": ("person", "place", "other")},
        graph=TEXT_TOKENS,
        weights=lambda normal: {"table": normal(len(WORDS), 4), **_without(_recurrent(normal, 4, 3), "zero")},
        examples=_texts,
        fields={"texts": TEXTS},
        limits=STEPS,
        is_recurrent=True,
    ),
    "tiny-forecast": Pair(
        reader=SERIES,
        head={"kind": "values", "names": ("load",), "units": ("kW",)},
        graph=SERIES_VALUES,
        weights=lambda normal: _without(_recurrent(normal, 2, 1), "one"),
        examples=_series,
        fields={"sequences": SEQUENCES},
        limits=STEPS,
        is_recurrent=True,
    ),
    "tiny-steps": Pair(
        reader=SERIES,
        head={"kind": "token-labels", "labels": ("low", "high", "none")},
        graph=SERIES_STEPS,
        weights=lambda normal: _without(_recurrent(normal, 2, 3), "zero"),
        examples=_series,
        fields={"sequences": SEQUENCES},
        limits=STEPS,
        is_recurrent=True,
    ),
    "tiny-tensors": Pair(
        reader={"kind": "tensors"},
        head={"kind": "tensors"},
        graph=TENSORS,
        weights=lambda normal: {"w": normal(2, 2), "one": whole(1)},
        examples=lambda rng, batch: {
            "points": rng.normal(size=(batch, 2)).astype(np.float32),
            "weights": rng.integers(-9, 9, batch),
        },
        fields={"tensors": {"points": [[0.5, -1], [2, 3]], "weights": [3, -4]}},
    ),
}
# Models whose height and width are free: images of one request may differ in size.
FREE_PAIRS: Mapping[str, Pair] = {
    "tiny-detector": Pair(
        reader={**FREE, "mode": "RGB"},
        head={"kind": "tensors"},
        graph=IMAGE_TENSORS,
        weights=lambda normal: {
            "w": normal(8, 3, 3, 3, scale=0.01),
            "box_shape": whole(0, 2, 4),
            "zero": whole(0),
            "one": whole(1),
        },
        examples=lambda rng, batch: _pixels(3 + batch, 4, 3)(rng, batch),
        fields={
            "images": [
                [[[9 * row, 7 * column, 50] for column in range(width)] for row in range(height)]
                for height, width in ((4, 5), (3, 4), (4, 5))
            ]
        },
        limits={"max_items": 8, "axes": AXES},
    ),
    "tiny-masks": Pair(
        reader={**FREE, "mode": "L"},
        head={**FREE, "mode": "L"},
        graph=IMAGE_MASK,
        weights=lambda normal: {
            "w": np.abs(normal(1, 1, 3, 3, scale=0.2)),
            "one": whole(1),
            "low": np.asarray(0, np.float32),
            "high": np.asarray(255, np.float32),
        },
        examples=lambda rng, batch: _pixels(4, 3 + batch)(rng, batch),
        fields={"images": [[[200] * 5] * 3, [[30] * 4] * 6]},
        limits={"max_items": 8, "axes": AXES},
    ),
}
ALL_PAIRS = {**PAIRS, **FREE_PAIRS}
DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64", onnx.TensorProto.UINT8: "uint8"}


@functools.cache
def weights(name: str) -> Mapping[str, Array]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))

    def normal(*shape: int, scale: float = 0.8) -> npt.NDArray[np.float32]:
        return rng.normal(0, scale, shape).astype(np.float32)

    return ALL_PAIRS[name].weights(normal)


@functools.cache
def onnx_model(name: str) -> onnx.ModelProto:
    graph = ALL_PAIRS[name].graph.strip()
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\n{name.replace("-", "_")} {graph}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in weights(name).items())
    onnx.checker.check_model(model, full_check=True)
    return model


@functools.cache
def golden_cases(name: str) -> tuple[GoldenCase, ...]:
    session = ort.InferenceSession(onnx_model(name).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(7)
    cases = [ALL_PAIRS[name].examples(rng, batch) for batch in (1, 3)]
    return tuple(
        GoldenCase(inputs=inputs, outputs=dict(zip(names, session.run(names, inputs), strict=True))) for inputs in cases
    )


def make_tokenizer() -> Tokenizer:
    """A tokenizer that adds [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def tensor_specs(name: str) -> dict[str, tuple[dict[str, Any], ...]]:
    graph = onnx_model(name).graph
    return {
        side: tuple(
            {
                "name": value.name,
                "dtype": DTYPES[value.type.tensor_type.elem_type],
                "shape": tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
            }
            for value in values
        )
        for side, values in (("inputs", graph.input), ("outputs", graph.output))
    }


def write_pair(root: Path, name: str, requests: Sequence[RequestCase] = (), **fields: Any) -> Path:
    """Write the bundle of a pair under `root`, and return its folder; `fields` replace fields of the manifest."""
    pair, specs = ALL_PAIRS[name], tensor_specs(name)
    cases = requests or [RequestCase(request={"model": name}, answer={})]
    lines = [json.dumps({"request": case.request, "answer": case.answer}, ensure_ascii=False) + "\n" for case in cases]
    files = {
        MODEL: onnx_model(name).SerializeToString(deterministic=True),
        GOLDEN: save(pack_golden(golden_cases(name))),
        REQUESTS: "".join(lines).encode(),
    }
    if pair.reader["kind"] == "text":
        files[TOKENIZER] = make_tokenizer().to_str().encode()
    base = manifest_fields("text-classifier" if pair.is_recurrent else "image-classifier")
    return write_bundle(
        root,
        "image-classifier",
        files=files,
        **{
            **base,
            "name": name,
            "summary": f"{name}, for tests.",
            **specs,
            "reader": pair.reader,
            "head": pair.head,
            "limits": pair.limits,
            "tolerance": {
                output["name"]: {"atol": 1e-5, "rtol": 1e-4, "measured": 2e-7} for output in specs["outputs"]
            },
            **fields,
        },
    )


def load_pair(root: Path, name: str, **fields: Any) -> Model:
    """Write the bundle of a pair, and return its model without the checks of a load."""
    return load(open_bundle(write_pair(root, name, **fields)))


def load(bundle: Bundle) -> Model:
    return create_model(bundle, Session(bundle.model, manifest=bundle.manifest, device="cpu"))


def request_body(name: str) -> dict[str, Any]:
    return {"model": name, **ALL_PAIRS[name].fields}


def write_with_requests(root: Path, staging: Path, name: str) -> None:
    """Write the bundle of a pair with a request that the task code answered."""
    answer = answer_request_sync(load_pair(staging, name), request_body(name))
    write_pair(root, name, [RequestCase(request=request_body(name), answer=answer)])
