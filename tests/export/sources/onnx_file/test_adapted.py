"""The served graph has the declared tensors, and computes what the reference between its adapters computes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from export.sources.onnx_file.source import load
from service.operators import check_operators
from tests.export.sources.onnx_file.graphs import (
    golden,
    linear,
    linear_case,
    mean_case,
    mean_of_steps,
    options,
    written,
)

TABLE = 'reader = {kind = "table", columns = [{kind = "number", name = "a"}, {kind = "number", name = "b"}, '
TABLE += '{kind = "number", name = "c"}, {kind = "number", name = "d"}]}\n'


def axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def run_graph(content: bytes | None, inputs: dict[str, Any]) -> dict[str, Any]:
    assert content is not None
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_graph_of_its_own_tensors_keeps_the_outputs_that_are_wanted(tmp_path: Path) -> None:
    cases = [linear_case(9), linear_case(2)]
    for case in cases:
        del case["label"]
    outputs = '[[head.outputs]]\nname = "scores"\ndtype = "float32"\nshape = ["batch", 3]\n'
    spec = '[reader]\nkind = "tensors"\n[head]\nkind = "tensors"\n' + outputs
    loaded = load(options(written(tmp_path, linear()), golden(tmp_path, *cases), spec))
    model = onnx.load_from_string(loaded.graph)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert [(value.name, axes(value)) for value in model.graph.output] == [("scores", ["batch", 3])]
    assert [(value.name, axes(value)) for value in model.graph.input] == [("X", ["batch", 4])]


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_adapted_graph_is_right(tmp_path: Path, opset: int) -> None:
    path = written(tmp_path, linear(opset=opset))
    file = golden(tmp_path, linear_case(9), linear_case(2))
    loaded = load(options(path, file, TABLE + 'head = {kind = "labels", labels = 3}'))
    assert loaded.graph is not None
    check_operators(loaded.graph, opset=opset)
    assert loaded.source.provenance.opset == opset
    numbers = linear_case(5)["X"]
    found, expected = run_graph(loaded.graph, {"numbers": numbers}), loaded.source.predict({"numbers": numbers})
    assert set(found) == set(expected) == {"logits", "probabilities"}
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_name_of_the_graph_may_be_that_of_the_head(tmp_path: Path) -> None:
    model = linear()
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = {"scores": "values", "X": "logits"}.get(name, name)
    model.graph.input[0].name, model.graph.output[1].name = "logits", "values"
    cases = [
        {"logits": case["X"], "values": case["scores"], "label": case["label"]}
        for case in (linear_case(9), linear_case(2))
    ]
    spec = TABLE + 'head = {kind = "values", names = ["x", "y", "z"], mean = 1.0, std = 2.0}'
    loaded = load(options(written(tmp_path, model), golden(tmp_path, *cases), spec))
    case = linear_case(4)
    np.testing.assert_allclose(
        run_graph(loaded.graph, {"numbers": case["X"]})["values"], case["scores"] * 2 + 1, rtol=1e-4
    )


def test_opset_before_the_operators_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, linear(opset=12))
    file = golden(tmp_path, linear_case(9), linear_case(2))
    with pytest.raises(ValueError, match=r"has opset 12; a reader or head needs 13 or newer, which onnx\.version_conv"):
        load(options(path, file, TABLE + 'head = {kind = "labels", labels = 3}'))
    loaded = load(options(path, file))
    assert loaded.source.provenance.opset == 12


def test_series_without_lengths_get_zeros_behind_their_end(tmp_path: Path) -> None:
    cases = [
        {"series": case["x"], "lengths": np.full(len(case["x"]), case["x"].shape[1]), "y": case["y"]}
        for case in (mean_case(5, 4), mean_case(6, 7))
    ]
    spec = 'reader = {kind = "series", channels = 2}\nhead = {kind = "embedding"}'
    loaded = load(options(written(tmp_path, mean_of_steps()), golden(tmp_path, *cases), spec))
    assert loaded.source.limits.max_steps == 7
    series = np.ones((2, 4, 2), np.float32)
    inputs = {"series": series, "lengths": np.array([4, 1])}
    found, expected = run_graph(loaded.graph, inputs), loaded.source.predict(inputs)
    np.testing.assert_array_equal(found["embedding"], expected["embedding"])
    assert found["embedding"].tolist() == [[1.0, 1.0], [0.25, 0.25]]
