"""A file is read as the service reads it; what cannot be served is refused in one sentence."""

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.node_builder import MIN_OPSET
from export.sources.onnx_file.graph import prune, read_graph
from service.operators import check_operators
from tests.export.sources.onnx_file.graphs import linear, model_of, value, written


def test_values_and_opset_are_read(tmp_path: Path) -> None:
    graph = read_graph(written(tmp_path, linear()))
    assert graph.opset == 17
    (x,), (label, scores) = graph.inputs, graph.outputs
    assert (x.name, x.dtype, x.axes) == ("X", "float32", (None, 4))
    assert (label.dtype, label.axes) == ("int64", (None,))
    assert scores.axes == (None, 3)
    named = read_graph(written(tmp_path, linear(batch="rows")))
    assert named.inputs[0].axes == ("rows", 4)


def test_what_a_bundle_does_not_need_is_dropped(tmp_path: Path) -> None:
    model = linear()
    model.opset_import.extend([helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("ai.onnx.ml", 1)])
    for holder in (model, model.graph, model.graph.node[0], model.graph.input[0], model.graph.initializer[0]):
        holder.metadata_props.add(key="trace", value="/home/somebody/train.py")
        holder.doc_string = "words"
    model.graph.value_info.append(value("scores2", TensorProto.FLOAT, 1))
    model.graph.input.append(value("w", TensorProto.FLOAT, 4, 3))
    model.ir_version = 3
    graph = read_graph(written(tmp_path, model))
    content = graph.model.SerializeToString()
    assert b"somebody" not in content
    assert b"words" not in content
    assert [value.name for value in graph.inputs] == ["X"]
    assert [(entry.domain, entry.version) for entry in graph.model.opset_import] == [("", 17)]
    assert graph.model.ir_version == 4
    check_operators(content, opset=17)


def test_graph_of_trees_alone_needs_no_standard_opset(tmp_path: Path) -> None:
    trees = helper.make_node("Normalizer", ["X"], ["scores"], domain="ai.onnx.ml")
    model = model_of(
        [trees], [value("X", TensorProto.FLOAT, "batch", 4)], [value("scores", TensorProto.FLOAT, "batch", 4)]
    )
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    assert read_graph(written(tmp_path, model)).opset == MIN_OPSET


@pytest.mark.parametrize("kind", ["pickle", "archive"])
def test_pickle_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.onnx"
    if kind == "pickle":
        path.write_bytes(b"\x80\x04\x95 weights")
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data.pkl", "x")
    with pytest.raises(ValueError, match="is a pickle or an archive, which may run code when it is read; convert"):
        read_graph(path)


def test_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        read_graph(tmp_path / "absent.onnx")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nonsense, but not a pickle")
    with pytest.raises(ValueError, match="is no ONNX graph with all its weights"):
        read_graph(path)
    model = linear()
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    read_graph(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"is no ONNX graph with all its weights: .*weights\.bin"):
        read_graph(path)


def test_operator_that_the_service_does_not_load_is_refused(tmp_path: Path) -> None:
    model = linear()
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(
        ValueError, match=r"model\.onnx: the service must not load this graph: operator domain 'com\.exam"
    ):
        read_graph(written(tmp_path, model))
    model = linear()
    del model.opset_import[:]
    with pytest.raises(ValueError, match="opset missing"):
        read_graph(written(tmp_path, model))


def test_control_flow_needs_the_spec(tmp_path: Path) -> None:
    inner = helper.make_graph([helper.make_node("Neg", ["X"], ["inner"])], "b", [], [value("inner", TensorProto.FLOAT)])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=_renamed(inner))
    model = model_of([node], [value("X", TensorProto.FLOAT, "n", 4)], [value("y", TensorProto.FLOAT, "n", 4)], yes=True)
    path = written(tmp_path, model)
    with pytest.raises(ValueError, match=r"is control flow.*; admit it by control_flow = true in the spec"):
        read_graph(path)
    graph = read_graph(path, control_flow=True)
    prune(graph.model)
    assert len(graph.model.graph.node) == 1


def _renamed(graph: onnx.GraphProto) -> onnx.GraphProto:
    other = onnx.GraphProto()
    other.CopyFrom(graph)
    other.name = other.node[0].output[0] = other.output[0].name = "other"
    return other


def test_value_without_a_shape_or_of_another_type_is_refused(tmp_path: Path) -> None:
    model = linear()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ValueError, match=r"'label' has no shape; run onnx\.shape_inference"):
        read_graph(written(tmp_path, model))
    model = linear()
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    with pytest.raises(ValueError, match="'label' is of type BFLOAT16, expected one of float32"):
        read_graph(written(tmp_path, model))


def test_axis_of_size_0_is_free(tmp_path: Path) -> None:
    assert read_graph(written(tmp_path, linear(batch=0))).inputs[0].axes == (None, 4)


def test_nodes_and_weights_that_no_output_needs_are_pruned() -> None:
    model = linear()
    model.graph.node.insert(0, helper.make_node("MatMul", ["X", "unused"], ["nothing"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((4, 1), np.float32), "unused"))
    del model.graph.output[0]
    prune(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert [weight.name for weight in model.graph.initializer] == ["w"]
