"""Writes tiny bundles, one per family of format 1, with real graphs, which tests load instead of trained models.

The weights are random but fixed. The graphs are written in the text format of ONNX, so they can be read in this file.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import parser
from safetensors.numpy import save
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from service.bundle import GoldenCase, RequestCase, pack_golden
from service.contract.tensors import TensorSpec
from service.manifest import GOLDEN, MANIFEST, MODEL, REQUESTS, TOKENIZER, Manifest

OPSET = 20
WORDS = ("[UNK]", "the", "train", "leaves", "at", "noon", "rice", "fish", "goal", "match")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz .\n")
NAMES = {
    "image-classifier": "tiny-images",
    "series-classifier": "tiny-series",
    "series-tagger": "tiny-tags",
    "text-classifier": "tiny-texts",
    "language-model": "tiny-letters",
    "image-generator": "tiny-pictures",
}
IMAGE = {"height": 4, "width": 4, "mode": "L"}
# A recurrent model computes a batch of one with other kernels, hence with other bits.
RECURRENT = frozenset({"series-classifier", "series-tagger", "text-classifier"})
CONTEXT = 160
NUM_HEADS, HEAD_SIZE, LAYERS = 2, 4, 2

TASK_OF_FAMILY = {
    "image-classifier": "classify",
    "series-classifier": "sequence-predict",
    "series-tagger": "sequence-predict",
    "text-classifier": "sequence-predict",
    "language-model": "generate",
    "image-generator": "generate",
}
FAMILIES = tuple(TASK_OF_FAMILY)
READERS: Mapping[str, dict[str, Any]] = {
    "image-classifier": {"kind": "image", **IMAGE},
    "series-classifier": {"kind": "series", "channels": 2},
    "series-tagger": {"kind": "series", "channels": 2, "state": {"layers": 1, "hidden": 3}},
    "text-classifier": {"kind": "text", "vocabulary": len(WORDS)},
    "language-model": {"kind": "text", "vocabulary": len(LETTERS)},
    "image-generator": {"kind": "tensors"},
}
HEADS: Mapping[str, dict[str, Any]] = {
    "image-classifier": {"kind": "labels", "labels": ("dog", "cat", "owl")},
    "series-classifier": {"kind": "labels", "labels": ("rise", "fall")},
    "series-tagger": {"kind": "token-labels", "labels": ("low", "high", "none")},
    "text-classifier": {"kind": "labels", "labels": ("travel", "food", "sport")},
    "language-model": {"kind": "language-model", "layers": LAYERS, "heads": NUM_HEADS, "head_size": HEAD_SIZE},
    "image-generator": {"kind": "image", **IMAGE},
}
PAIRS = {family: f"{READERS[family]['kind']} -> {HEADS[family]['kind']}" for family in FAMILIES}
LIMITS: Mapping[str, dict[str, int]] = {
    "image-classifier": {"max_items": 8},
    "series-classifier": {"max_items": 8, "max_steps": 12},
    "series-tagger": {"max_items": 8, "max_steps": 12},
    "text-classifier": {"max_items": 8, "max_steps": 6},
    "language-model": {"max_items": 8, "max_steps": CONTEXT},
    "image-generator": {"max_items": 8},
}

IMAGE_CLASSIFIER = """
(uint8[batch, 4, 4] images) => (float[batch, 3] logits, float[batch, 3] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  logits = Gemm (flat, w, b)
  probabilities = Softmax <axis = -1> (logits)
}"""
SERIES_CLASSIFIER = """
(float[batch, steps, 2] series, int64[batch] lengths) => (float[batch, 2] logits, float[batch, 2] probabilities) {
  x_tbi = Transpose <perm = [1, 0, 2]> (series)
  valid = Cast <to = 6> (lengths)
  all, last = RNN <hidden_size = 3> (x_tbi, w, r, b, valid)
  state = Squeeze (last, zero)
  logits = MatMul (state, head)
  probabilities = Softmax <axis = -1> (logits)
}"""
SERIES_TAGGER = """
(float[batch, steps, 2] series, int64[batch] lengths, float[batch, 1, 3] h, float[batch, 1, 3] c)
=> (float[batch, steps, 3] logits, float[batch, steps, 3] probabilities, float[batch, 1, 3] next_h,
    float[batch, 1, 3] next_c) {
  x_tbi = Transpose <perm = [1, 0, 2]> (series)
  valid = Cast <to = 6> (lengths)
  h_lbh = Transpose <perm = [1, 0, 2]> (h)
  c_lbh = Transpose <perm = [1, 0, 2]> (c)
  all, last_h, last_c = LSTM <hidden_size = 3> (x_tbi, w, r, b, valid, h_lbh, c_lbh)
  y_tbh = Squeeze (all, one)
  y_bth = Transpose <perm = [1, 0, 2]> (y_tbh)
  logits = MatMul (y_bth, head)
  probabilities = Softmax <axis = -1> (logits)
  next_h = Transpose <perm = [1, 0, 2]> (last_h)
  next_c = Transpose <perm = [1, 0, 2]> (last_c)
}"""
TEXT_CLASSIFIER = """
(int64[batch, steps] ids, int64[batch] lengths) => (float[batch, 3] logits, float[batch, 3] probabilities) {
  ids_tb = Transpose <perm = [1, 0]> (ids)
  x_tbi = Gather (embedding, ids_tb)
  valid = Cast <to = 6> (lengths)
  all, last = RNN <hidden_size = 3> (x_tbi, w, r, b, valid)
  state = Squeeze (last, zero)
  logits = MatMul (state, head)
  probabilities = Softmax <axis = -1> (logits)
}"""
IMAGE_GENERATOR = """
(float[batch, 5] latents) => (float[batch, 4, 4] samples, uint8[batch, 4, 4] images) {
  mixed = MatMul (latents, w)
  bounded = Tanh (mixed)
  samples = Reshape (bounded, shape)
  raised = Add (samples, lift)
  scaled = Mul (raised, half)
  rounded = Round (scaled)
  images = Cast <to = 2> (rounded)
}"""
ATTENTION = """
  q_{i} = MatMul (x_{i}, q_w_{i})
  k_{i} = MatMul (x_{i}, k_w_{i})
  v_{i} = MatMul (x_{i}, v_w_{i})
  q_bshd_{i} = Reshape (q_{i}, split)
  k_bshd_{i} = Reshape (k_{i}, split)
  v_bshd_{i} = Reshape (v_{i}, split)
  q_bhsd_{i} = Transpose <perm = [0, 2, 1, 3]> (q_bshd_{i})
  new_key_{i} = Transpose <perm = [0, 2, 1, 3]> (k_bshd_{i})
  new_value_{i} = Transpose <perm = [0, 2, 1, 3]> (v_bshd_{i})
  keys_{i} = Concat <axis = 2> (past_key_{i}, new_key_{i})
  values_{i} = Concat <axis = 2> (past_value_{i}, new_value_{i})
  keys_t_{i} = Transpose <perm = [0, 1, 3, 2]> (keys_{i})
  raw_{i} = MatMul (q_bhsd_{i}, keys_t_{i})
  masked_{i} = Where (seen, raw_{i}, hidden)
  weights_{i} = Softmax <axis = -1> (masked_{i})
  read_{i} = MatMul (weights_{i}, values_{i})
  read_bshd_{i} = Transpose <perm = [0, 2, 1, 3]> (read_{i})
  read_bse_{i} = Reshape (read_bshd_{i}, join)
  x_{j} = Add (x_{i}, read_bse_{i})
"""
LANGUAGE_MODEL = """
(int64[batch, steps] ids, int64[batch] past_lengths, PAST_SPECS) => (float[batch, steps, 29] logits, NEW_SPECS) {
  steps_1 = Shape <start = 1, end = 2> (ids)
  past_shape = Shape <start = 2, end = 3> (past_key_0)
  step_count = Squeeze (steps_1, zero)
  past_count = Squeeze (past_shape, zero)
  new_s = Range (zero_scalar, step_count, one_scalar)
  old_p = Range (zero_scalar, past_count, one_scalar)
  past_b1 = Unsqueeze (past_lengths, one)
  place_bs = Add (past_b1, new_s)
  token = Gather (embedding, ids)
  place = Gather (positions, place_bs)
  x_0 = Add (token, place)
  old_seen_bp = Less (old_p, past_b1)
  old_seen = Unsqueeze (old_seen_bp, one_two)
  new_s1 = Unsqueeze (new_s, one)
  new_seen = LessOrEqual (new_s, new_s1)
  ones_b = Shape <start = 0, end = 1> (ids)
  old_shape = Concat <axis = 0> (ones_b, one, steps_1, past_shape)
  new_shape = Concat <axis = 0> (ones_b, one, steps_1, steps_1)
  old_seen_b1sp = Expand (old_seen, old_shape)
  new_seen_b1ss = Expand (new_seen, new_shape)
  seen = Concat <axis = 3> (old_seen_b1sp, new_seen_b1ss)
ATTENTION
  logits = MatMul (x_LAST, head)
}"""


def _language_model() -> str:
    specs = [
        [f"float[batch, {NUM_HEADS}, {axis}, {HEAD_SIZE}] {prefix}_{kind}_{i}" for i in range(LAYERS) for kind in KINDS]
        for prefix, axis in (("past", "past"), ("new", "steps"))
    ]
    layers = "".join(ATTENTION.format(i=i, j=i + 1) for i in range(LAYERS))
    graph = LANGUAGE_MODEL.replace("PAST_SPECS", ", ".join(specs[0])).replace("NEW_SPECS", ", ".join(specs[1]))
    return graph.replace("ATTENTION", layers).replace("LAST", str(LAYERS))


KINDS = ("key", "value")
GRAPHS = {
    "image-classifier": IMAGE_CLASSIFIER,
    "series-classifier": SERIES_CLASSIFIER,
    "series-tagger": SERIES_TAGGER,
    "text-classifier": TEXT_CLASSIFIER,
    "language-model": _language_model(),
    "image-generator": IMAGE_GENERATOR,
}


@functools.cache
def weights(family: str) -> Mapping[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(FAMILIES.index(family))

    def normal(*shape: int, scale: float = 0.8) -> npt.NDArray[np.float32]:
        return rng.normal(0, scale, shape).astype(np.float32)

    def whole(*numbers: int) -> npt.NDArray[np.int64]:
        return np.array(numbers, np.int64)

    zero, one = whole(0), whole(1)
    if family == "image-classifier":
        return {"w": normal(16, 3, scale=0.01), "b": normal(3)}
    if family == "series-classifier":
        return {"w": normal(1, 3, 2), "r": normal(1, 3, 3), "b": normal(1, 6), "head": normal(3, 2), "zero": zero}
    if family == "series-tagger":
        return {"w": normal(1, 12, 2), "r": normal(1, 12, 3), "b": normal(1, 24), "head": normal(3, 3), "one": one}
    if family == "text-classifier":
        table, recurrent = normal(len(WORDS), 4), {"w": normal(1, 3, 4), "r": normal(1, 3, 3), "b": normal(1, 6)}
        return {"embedding": table, **recurrent, "head": normal(3, 3), "zero": zero}
    if family == "image-generator":
        constants = {"lift": np.float32(1), "half": np.float32(127.5), "shape": whole(-1, 4, 4)}
        return {"w": normal(5, 16), **{name: np.asarray(value) for name, value in constants.items()}}
    width = NUM_HEADS * HEAD_SIZE
    layers = {f"{kind}_w_{i}": normal(width, width, scale=0.3) for i in range(LAYERS) for kind in "qkv"}
    scalars = {"zero_scalar": np.asarray(0), "one_scalar": np.asarray(1), "hidden": np.asarray(-1e9, np.float32)}
    axes = {"zero": zero, "one": one, "one_two": whole(1, 2), "join": whole(0, 0, width)}
    tables = {"embedding": normal(len(LETTERS), width), "positions": normal(CONTEXT, width)}
    return {
        **tables,
        **layers,
        "head": normal(width, len(LETTERS)),
        **scalars,
        **axes,
        "split": whole(0, 0, NUM_HEADS, HEAD_SIZE),
    }


@functools.cache
def onnx_model(family: str) -> onnx.ModelProto:
    name = NAMES[family].replace("-", "_")
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\n{name} {GRAPHS[family].strip()}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in weights(family).items())
    onnx.checker.check_model(model, full_check=True)
    return model


def example_inputs(family: str, *, batch: int = 3, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Return random valid inputs; rows differ in length if the family has lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, batch)
    lengths[rng.integers(batch)] = 5
    series = rng.normal(size=(batch, 5, 2)).astype(np.float32)
    match family:
        case "image-classifier":
            return {"images": rng.integers(0, 256, (batch, 4, 4), dtype=np.uint8)}
        case "series-classifier":
            return {"series": series, "lengths": lengths}
        case "series-tagger":
            state = rng.normal(size=(2, batch, 1, 3)).astype(np.float32)
            return {"series": series, "lengths": lengths, "h": state[0], "c": state[1]}
        case "text-classifier":
            return {"ids": rng.integers(0, len(WORDS), (batch, 5)), "lengths": lengths}
        case "image-generator":
            return {"latents": rng.normal(size=(batch, 5)).astype(np.float32)}
        case _:
            past = {
                f"past_{kind}_{i}": rng.normal(size=(batch, NUM_HEADS, 6, HEAD_SIZE)).astype(np.float32)
                for i in range(LAYERS)
                for kind in KINDS
            }
            return {"ids": rng.integers(0, len(LETTERS), (batch, 5)), "past_lengths": lengths, **past}


@functools.cache
def golden_cases(family: str) -> tuple[GoldenCase, ...]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(onnx_model(family).SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    cases = [example_inputs(family, batch=batch, seed=batch) for batch in (1, 3)]
    return tuple(
        GoldenCase(inputs=inputs, outputs=dict(zip(names, session.run(names, inputs), strict=True))) for inputs in cases
    )


@functools.cache
def tokenizer_json(family: str) -> str | None:
    if family == "text-classifier":
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return tokenizer.to_str()
    if family == "language-model":
        tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="."))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return tokenizer.to_str()
    return None


def tensor_specs(family: str) -> dict[str, tuple[TensorSpec, ...]]:
    dtypes = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64", onnx.TensorProto.UINT8: "uint8"}
    graph = onnx_model(family).graph
    return {
        side: tuple(
            TensorSpec(
                name=value.name,
                dtype=dtypes[value.type.tensor_type.elem_type],
                shape=tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
            )
            for value in values
        )
        for side, values in (("inputs", graph.input), ("outputs", graph.output))
    }


def manifest_fields(family: str) -> dict[str, Any]:
    """Return all fields of a manifest except version and files."""
    specs = tensor_specs(family)
    tolerance = {"atol": 1e-5, "rtol": 1e-4, "measured": 2e-7}
    return {
        "name": NAMES[family],
        "summary": f"A tiny {family} for tests.",
        **specs,
        "reader": READERS[family],
        "head": HEADS[family],
        "limits": LIMITS[family],
        "tolerance": {output.name: tolerance for output in specs["outputs"]},
        "invariance": {
            "level": "bitwise",
            "measured": 0.0,
            "how": "not measured: for tests",
            "strategy": "minimum-batch-2" if family in RECURRENT else "none",
        },
        "provenance": {
            "recipe": NAMES[family],
            "commit": "0" * 40,
            "seed": 0,
            "steps": 0,
            "data": {"random numbers": "0" * 64},
            "metrics": {"test_accuracy": 0.5},
            "versions": {"onnxruntime": ort.__version__},
            "opset": OPSET,
        },
    }


def bundle_files(
    family: str,
    *,
    requests: Sequence[RequestCase] | None = None,
    golden: Sequence[GoldenCase] | None = None,
    model: bytes | None = None,
) -> dict[str, bytes]:
    """Return the files of a valid bundle without its manifest; arguments replace the default contents."""
    cases = golden_cases(family) if golden is None else tuple(golden)
    rows = [RequestCase(request={"model": NAMES[family]}, answer={})] if requests is None else requests
    lines = [json.dumps({"request": row.request, "answer": row.answer}, ensure_ascii=False) + "\n" for row in rows]
    files = {
        MODEL: onnx_model(family).SerializeToString(deterministic=True) if model is None else model,
        GOLDEN: save(pack_golden(cases)),
        REQUESTS: "".join(lines).encode(),
    }
    tokenizer = tokenizer_json(family)
    return files if tokenizer is None else {**files, TOKENIZER: tokenizer.encode()}


def write_bundle(root: Path, family: str, *, files: Mapping[str, bytes] | None = None, **fields: Any) -> Path:
    """Write a bundle and `current` under `root` and return its folder; `fields` replace fields of the manifest."""
    contents = bundle_files(family) if files is None else files
    manifest = Manifest.versioned(
        **{
            **manifest_fields(family),
            "files": {
                name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                for name, content in sorted(contents.items())
            },
            **fields,
        }
    )
    folder = root / manifest.name / manifest.version
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_text(manifest.to_json())
    (folder.parent / "current").write_text(manifest.version + "\n")
    return folder
