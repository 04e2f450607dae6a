"""The nodes around a graph compute what the PyTorch modules of the same spec compute."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper

from export.graph.adapters import (
    head_outputs,
    image_inputs,
    renamed,
    series_inputs,
    table_inputs,
    text_inputs,
    value_info,
)
from export.graph.node_builder import MIN_OPSET, NodeBuilder
from export.sources.module.inputs import build_input
from export.sources.module.outputs import build_output
from export.spec import Spec, parse_spec

RNG = np.random.default_rng(5)
Arrays = dict[str, Any]
TENSORS = {"kind": "tensors"}


def spec_of(reader: Mapping[str, Any] = TENSORS, head: Mapping[str, Any] = TENSORS) -> Spec:
    return parse_spec({"reader": dict(reader), "head": dict(head)}, Path("spec.toml"))


def run(build: NodeBuilder, values: Mapping[str, str], arrays: Arrays, opset: int) -> Arrays:
    """Run the nodes alone; returns the values by their keys."""
    inputs = [value_info(name, str(array.dtype), [None] * array.ndim) for name, array in arrays.items()]
    outputs = [onnx.ValueInfoProto(name=value) for value in dict.fromkeys(values.values())]
    nodes = build.nodes
    if passed := [output for output in outputs if output.name in arrays]:
        # An output of a graph that is an input needs a node between them.
        nodes = [*nodes, *(helper.make_node("Identity", [one.name], [f"{one.name}/out"]) for one in passed)]
        values = {key: f"{value}/out" if value in arrays else value for key, value in values.items()}
        outputs = [onnx.ValueInfoProto(name=value) for value in dict.fromkeys(values.values())]
    graph = helper.make_graph(nodes, "g", inputs, outputs, build.constants)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip((output.name for output in outputs), session.run(None, arrays), strict=True))
    return {key: found[value] for key, value in values.items()}


def assert_same(found: Arrays, expected: Mapping[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.numpy().dtype, name
        np.testing.assert_allclose(found[name], tensor.numpy(), rtol=1e-6, atol=1e-6, err_msg=name)


def torch_inputs(spec: Spec, arrays: Arrays, names: list[str] | None) -> dict[str, torch.Tensor]:
    module = build_input(spec, names, list(arrays))
    result: dict[str, torch.Tensor] = module(*(torch.from_numpy(array) for array in arrays.values()))
    return result


@pytest.mark.parametrize("opset", [MIN_OPSET, 20])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW", "flat"])
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("L", {}),
        ("L", {"mean": 0.13, "std": 0.31}),
        ("L", {"scale": 1.0}),
        ("RGB", {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}),
        ("RGB", {"scale": 2 / 255, "mean": 1.0}),
    ],
)
def test_pictures(mode: str, words: dict[str, Any], layout: str, opset: int) -> None:
    if (mode, layout) == ("RGB", "NHW"):
        pytest.skip("RGB needs an axis of channels")
    spec = spec_of({"kind": "image", "height": 4, "width": 5, "mode": mode, "layout": layout, **words})
    arrays = {"images": RNG.integers(0, 256, (3, 4, 5, *([3] if mode == "RGB" else [])), dtype=np.uint8)}
    build = NodeBuilder("r/")
    part: Any = spec.reader
    assert_same(run(build, image_inputs(build, part, "x"), arrays, opset), torch_inputs(spec, arrays, ["x"]))


@pytest.mark.parametrize("opset", [MIN_OPSET, 20])
@pytest.mark.parametrize("layout", ["NTC", "NCT", "TNC"])
@pytest.mark.parametrize("names", [["x"], ["x", "lengths"], ["x", "mask"], ["x", "lengths", "mask"]])
def test_series(layout: str, names: list[str], opset: int) -> None:
    spec = spec_of({"kind": "series", "channels": 2, "layout": layout})
    arrays = {"series": RNG.normal(size=(3, 4, 2)).astype(np.float32), "lengths": np.array([4, 1, 3])}
    build, part = NodeBuilder("r/"), spec.reader
    extras = {name: name for name in names[1:]}
    found = run(build, series_inputs(build, part, "x", extras), arrays, opset)  # type: ignore[arg-type]
    assert_same(found, torch_inputs(spec, arrays, names))


def test_state_of_a_series() -> None:
    spec = spec_of({"kind": "series", "channels": 2, "state": {"layers": 2, "hidden": 3}})
    state = {name: RNG.normal(size=(4, 2, 3)).astype(np.float32) for name in ("h", "c")}
    arrays = {"series": np.ones((4, 1, 2), np.float32), "lengths": np.ones(4, np.int64), **state}
    build, part = NodeBuilder("r/"), spec.reader
    found = run(build, series_inputs(build, part, "x", {"lengths": "lengths"}), arrays, 20)  # type: ignore[arg-type]
    assert_same(found, torch_inputs(spec, arrays, ["x", "lengths", "h", "c"]))


@pytest.mark.parametrize("opset", [MIN_OPSET, 20])
def test_texts(opset: int, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    reader = {"kind": "text", "tokenizer": "tokenizer.json"}
    spec = parse_spec({"reader": reader, "head": TENSORS}, tmp_path / "spec.toml")
    names = ["input_ids", "lengths", "attention_mask", "token_type_ids", "position_ids"]
    arrays = {"ids": RNG.integers(1, 9, (3, 4)), "lengths": np.array([4, 1, 3])}
    build = NodeBuilder("r/")
    found = run(build, text_inputs(build, names[0], {name: name for name in names[1:]}), arrays, opset)
    assert_same(found, torch_inputs(spec, arrays, names))
    assert found["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("encoding", ["index", "one-hot"])
@pytest.mark.parametrize("kinds", ["number", "category", "both"])
def test_tables(kinds: str, encoding: str, join: bool) -> None:
    columns: list[dict[str, Any]] = []
    arrays: Arrays = {}
    if kinds != "category":
        columns += [{"kind": "number", "name": name} for name in ("a", "b")]
        arrays["numbers"] = RNG.normal(size=(5, 2)).astype(np.float32)
    if kinds != "number":
        columns += [{"kind": "category", "name": f"c{n}", "values": [str(i) for i in range(n)]} for n in (2, 3)]
        arrays["categories"] = np.stack([RNG.integers(0, n, 5) for n in (2, 3)], 1)
    spec = spec_of({"kind": "table", "columns": columns, "encoding": encoding, "join": join})
    names = list(arrays)[:1] if join else list(arrays)
    build, part = NodeBuilder("r/"), spec.reader
    found = run(build, table_inputs(build, part, names), arrays, 20)  # type: ignore[arg-type]
    assert_same(found, torch_inputs(spec, arrays, names))


HEADS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "softmax": ({"kind": "labels", "labels": 3}, (4, 3)),
    "probabilities": ({"kind": "labels", "labels": 3, "activation": "none"}, (4, 3)),
    "one score": ({"kind": "labels", "labels": 2, "activation": "sigmoid"}, (4, 1)),
    "one score without an axis": ({"kind": "labels", "labels": 2, "activation": "sigmoid"}, (4,)),
    "multilabel": ({"kind": "multilabel", "labels": 3}, (4, 3)),
    "values": ({"kind": "values", "names": ["a", "b"]}, (4, 2)),
    "scaled values": ({"kind": "values", "names": ["a", "b"], "mean": [1.0, 2.0], "std": [3.0, 4.0]}, (4, 2)),
    "value without an axis": ({"kind": "values", "names": ["a"], "mean": 2.0}, (4,)),
    "embedding": ({"kind": "embedding"}, (4, 6)),
    "normalized": ({"kind": "embedding", "normalized": True}, (4, 6)),
    "first": ({"kind": "embedding", "pooling": "first"}, (4, 5, 6)),
    "mean": ({"kind": "embedding", "pooling": "mean", "normalized": True}, (4, 5, 6)),
    "token labels": ({"kind": "token-labels", "labels": 3}, (4, 5, 3)),
    "grey picture": ({"kind": "image", "layout": "NCHW"}, (4, 1, 5, 6)),
    "grey picture without channels": ({"kind": "image", "layout": "NHW", "scale": 100.0}, (4, 5, 6)),
    "coloured picture": ({"kind": "image", "mode": "RGB", "layout": "NCHW"}, (4, 3, 5, 6)),
    "channels last": ({"kind": "image", "mode": "RGB", "layout": "NHWC"}, (4, 5, 6, 3)),
}


@pytest.mark.parametrize("opset", [MIN_OPSET, 20])
@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str, opset: int) -> None:
    head, shape = HEADS[name]
    spec = spec_of(head=head)
    arrays = {"own": RNG.normal(size=shape).astype(np.float32), "lengths": np.array([5, 1, 3, 2])}
    build = NodeBuilder("h/")
    found = run(build, head_outputs(build, spec.head, "own", len(shape)), arrays, opset)
    with torch.no_grad():
        output, lengths = (torch.from_numpy(array) for array in arrays.values())
        assert_same(found, build_output(spec)(output, {"lengths": lengths}))


def test_head_without_an_output_is_refused() -> None:
    head = {"kind": "language-model", "layers": 1, "heads": 1, "head_size": 1}
    with pytest.raises(ValueError, match="'language-model' cannot be made of a graph's own outputs"):
        head_outputs(NodeBuilder(""), spec_of(head=head).head, "own", 3)


def test_renamed_graph_computes_the_same() -> None:
    node = helper.make_node("Neg", ["probabilities"], ["y"])
    inputs, outputs = ([value_info(name, "float32", ["batch", 2])] for name in ("probabilities", "y"))
    model = helper.make_model(helper.make_graph([node], "g", inputs, outputs), ir_version=8)
    other = renamed(model, "model/")
    assert [value.name for value in (*other.graph.input, *other.graph.output)] == ["model/probabilities", "model/y"]
    assert model.graph.input[0].name == "probabilities"


def test_description_of_a_tensor_of_strings() -> None:
    assert value_info("x", "string", ["batch"]).type.tensor_type.elem_type == onnx.TensorProto.STRING
