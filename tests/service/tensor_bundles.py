"""Tiny bundles whose manifests declare their own tensors: every dtype, the batch axis first, second or nowhere."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import parser
from safetensors.numpy import save

from service.bundle import GoldenCase, RequestCase, pack_golden
from service.contract.tensors import Dtype, TensorSpec, from_rows, tensor, to_rows
from service.manifest import GOLDEN, MANIFEST, MODEL, REQUESTS, Manifest
from tests.service.bundles import OPSET

Array = npt.NDArray[Any]
DTYPES: dict[Dtype, str] = {
    "bool": "bool",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "float16": "float16",
    "float32": "float",
    "float64": "double",
    "string": "string",
}
# For each dtype values at both ends, of which a lossy conversion would change one.
VALUES: dict[Dtype, list[Any]] = {
    "bool": [True, False, True],
    "uint8": [0, 255, 7],
    "uint16": [0, 65535, 7],
    "uint32": [0, 2**32 - 1, 7],
    "uint64": [0, 2**63 + 1, 7],
    "int8": [-128, 127, 7],
    "int16": [-(2**15), 2**15 - 1, 7],
    "int32": [-(2**31), 2**31 - 1, 7],
    "int64": [-(2**63), 2**63 - 1, 7],
    "float16": [-65504.0, 1.5, 6e-8],
    "float32": [-3e38, 1.5, 1e-45],
    "float64": [-1e308, 0.1, 5e-324],
    "string": ["", "駅弁 \u2028", "a\0"],
}


def graph(text: str) -> bytes:
    model = parser.parse_graph(text)
    made = onnx.helper.make_model(model, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


def axes(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def write(
    root: Path,
    name: str,
    text: str,
    *,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    cases: Sequence[Mapping[str, Array]],
    compute: Callable[[Mapping[str, Array]], dict[str, Array]],
    **fields: Any,
) -> Path:
    """Write a bundle of the pair tensors -> tensors; `cases` and `compute` have the declared axes."""
    golden = tuple(
        GoldenCase(
            inputs={spec.name: np.ascontiguousarray(to_rows(case[spec.name], spec)) for spec in inputs},
            outputs={spec.name: np.ascontiguousarray(to_rows(compute(case)[spec.name], spec)) for spec in outputs},
        )
        for case in cases
    )
    request = {"model": name, "tensors": {spec.name: cases[0][spec.name].tolist() for spec in inputs}}
    rows = range(len(golden[0].outputs[outputs[0].name]))
    predictions = [{"outputs": {key: value[i].tolist() for key, value in golden[0].outputs.items()}} for i in rows]
    answer = {"model": name, "predictions": predictions}
    files = {
        MODEL: graph(text),
        GOLDEN: save(pack_golden(golden)),
        REQUESTS: (json.dumps(RequestCase(request=request, answer=answer).model_dump()) + "\n").encode(),
    }
    manifest = Manifest.versioned(
        **{
            "name": name,
            "summary": "Tensors for tests.",
            "reader": {"kind": "tensors"},
            "head": {"kind": "tensors"},
            "inputs": inputs,
            "outputs": outputs,
            "limits": {"max_items": 4},
            "tolerance": {spec.name: {"atol": 0.0, "rtol": 0.0, "measured": 0.0} for spec in outputs},
            "invariance": {"level": "bitwise", "measured": 0.0, "how": "not measured: for tests"},
            "files": {
                key: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                for key, content in files.items()
            },
            "provenance": {
                "recipe": "onnx", "reference": "the given outputs", "commit": "0" * 40, "seed": 0, "steps": 0,
                "data": {}, "metrics": {}, "versions": {}, "opset": OPSET,
            },
            **fields,
        }
    )  # fmt: skip
    folder = root / manifest.name / manifest.version
    folder.mkdir(parents=True)
    for key, content in files.items():
        (folder / key).write_bytes(content)
    (folder / MANIFEST).write_text(manifest.to_json())
    (folder.parent / "current").write_text(manifest.version + "\n")
    return folder


def write_echo(root: Path, dtype: Dtype) -> Path:
    """A model that returns its input of this dtype."""
    shape = ("batch", 3)
    spec, kind = tensor(dtype, "x", *shape), f"{DTYPES[dtype]}{axes(shape)}"
    return write(
        root,
        f"echo-{dtype}",
        f"g ({kind} x) => ({kind} y) {{ y = Identity (x) }}",
        inputs=(spec,),
        outputs=(tensor(dtype, "y", *shape),),
        cases=[{"x": np.array([np.roll(VALUES[dtype], i) for i in range(3)], spec.numpy_dtype)}],
        compute=lambda inputs: {"y": inputs["x"]},
    )


def write_second_axis(root: Path) -> Path:
    """Sums of series [times, batch, 2] over their times; `times` is free and has no lengths."""
    return write(
        root,
        "second-axis",
        "g (float[times, batch, 2] x, int64[batch] add) => (float[2, batch] y) { "
        "axis = Constant <value_ints = [0]> () total = ReduceSum <keepdims = 0> (x, axis) "
        "last = Constant <value_ints = [1]> () row = Unsqueeze (add, last) more = Cast <to = 1> (row) "
        "sum = Add (total, more) y = Transpose <perm = [1, 0]> (sum) }",
        inputs=(tensor("float32", "x", "times", "batch", 2), tensor("int64", "add", "batch")),
        outputs=(tensor("float32", "y", 2, "batch"),),
        cases=[
            {"x": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "add": np.array([1, 2, 3])},
            {"x": np.arange(16, dtype=np.float32).reshape(4, 2, 2) ** 2, "add": np.array([3, 1])},
        ],
        compute=lambda inputs: {"y": (inputs["x"].sum(0) + inputs["add"][:, None]).T.astype(np.float32)},
        limits={"max_items": 4, "axes": {"times": {"min": 1, "max": 5}}},
    )


def write_without_batch(root: Path) -> Path:
    """The largest number of one matrix [rows, 2] and its place; a request has one matrix."""
    return write(
        root,
        "no-batch",
        "g (float[rows, 2] x) => (float[2] y, int64[2] at) { axis = Constant <value_ints = [0]> () "
        "y = ReduceMax <keepdims = 0> (x, axis) at = ArgMax <axis = 0, keepdims = 0> (x) }",
        inputs=(tensor("float32", "x", "rows", 2),),
        outputs=(tensor("float32", "y", 2), tensor("int64", "at", 2)),
        cases=[{"x": np.array([[1, 5], [3, 2]] * n, np.float32) * n} for n in (1, 2, 3)],
        compute=lambda inputs: {"y": inputs["x"].max(0), "at": inputs["x"].argmax(0)},
        limits={"max_items": 1, "axes": {"rows": {"min": 1, "max": 6}}},
    )


def declared(folder: Path, rows: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors of a golden case with the axes that the manifest declares."""
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    specs = {spec.name: spec for spec in (*manifest.inputs, *manifest.outputs)}
    return {name: from_rows(value, specs[name]) for name, value in rows.items()}
