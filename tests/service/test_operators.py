"""Unsafe models are refused from their bytes alone; the `onnx` package is the independent reader."""

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from service.operators import check_operators
from tests.service.bundles import FAMILIES, OPSET, onnx_model

TINY = onnx_model("image-classifier")


def assert_refused(model: onnx.ModelProto | bytes, message: str) -> None:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(ValueError, match=message):
        check_operators(content, opset=OPSET)


def copy_of_tiny() -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(TINY)
    return model


def external_tensor() -> TensorProto:
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def graph_with(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [], initializers)


@pytest.mark.parametrize("family", FAMILIES)
def test_valid_model_passes(family: str) -> None:
    check_operators(onnx_model(family).SerializeToString(), opset=OPSET)


def test_external_data_is_refused_in_every_tensor() -> None:
    branch = graph_with(initializers=(external_tensor(),))
    sparse = onnx.SparseTensorProto(values=external_tensor())
    attributes = [
        helper.make_attribute("value", external_tensor()),
        helper.make_attribute("many", [external_tensor()]),
        helper.make_attribute("then_branch", branch),
        helper.make_attribute("bodies", [branch]),
        helper.make_attribute("sparse_value", sparse),
    ]
    for attribute in attributes:
        model = copy_of_tiny()
        model.graph.node[0].attribute.append(attribute)
        assert_refused(model, "external data")
    model = copy_of_tiny()
    model.graph.initializer.append(external_tensor())
    assert_refused(model, "external data")
    model = copy_of_tiny()
    model.graph.sparse_initializer.append(sparse)
    assert_refused(model, "external data")
    model = copy_of_tiny()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert_refused(model, "external data")


def test_nonstandard_operators_are_refused_at_any_depth() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    model = copy_of_tiny()
    model.graph.node.append(node)
    assert_refused(model, "operator domain 'com.microsoft'")
    model = copy_of_tiny()
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=graph_with(node)))
    assert_refused(model, "operator domain 'com.microsoft'")
    model = copy_of_tiny()
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    assert_refused(model, r"operator domain 'my\.ops'")


def test_both_names_of_the_standard_domain_pass() -> None:
    model = copy_of_tiny()
    model.graph.node[0].domain = "ai.onnx"
    model.opset_import[0].domain = "ai.onnx"
    check_operators(model.SerializeToString(), opset=OPSET)


def test_functions_and_training_information_are_refused() -> None:
    model = copy_of_tiny()
    model.functions.append(helper.make_function("my", "f", ["x"], ["y"], [], []))
    assert_refused(model, "local functions")
    model = copy_of_tiny()
    model.training_info.add()
    assert_refused(model, "training information")


def test_opset_must_be_the_declared_one() -> None:
    model = copy_of_tiny()
    model.opset_import[0].version = 21
    assert_refused(model, "opset 21, expected 20")
    model.opset_import.append(helper.make_opsetid("", 20))
    assert_refused(model, "opset 20 and 21, expected 20")
    del model.opset_import[:]
    assert_refused(model, "opset missing, expected 20")
    model.opset_import.add(domain="")
    assert_refused(model, "opset 0, expected 20")


def test_model_without_a_graph_is_refused() -> None:
    assert_refused(b"", "no graph")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_value_errors(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_operators(content, opset=OPSET)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    content = bytearray(onnx_model(draw(st.sampled_from(FAMILIES))).SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content) - 1))
        match draw(st.sampled_from(["set", "cut", "copy"])):
            case "set":
                content[at] = draw(st.integers(0, 255))
            case "cut":
                del content[at : at + draw(st.integers(1, 20))]
            case "copy":
                content[at:at] = content[at : at + draw(st.integers(1, 60))]
        if not content:
            break
    return bytes(content)


@settings(max_examples=300)
@given(mutated())
def test_models_that_pass_are_safe_according_to_the_onnx_package(content: bytes) -> None:
    try:
        check_operators(content, opset=OPSET)
    except ValueError:
        return
    try:
        model = onnx.load_from_string(content)
    except DecodeError:
        return
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    assert not model.functions
    for graph in graphs(model.graph):
        assert all(node.domain in {"", "ai.onnx"} for node in graph.node)
        assert all(not tensor.external_data and not tensor.data_location for tensor in graph.initializer)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from graphs(inner)


def test_large_weights_pass() -> None:
    model = copy_of_tiny()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1000, 1000), np.float32), "big"))
    check_operators(model.SerializeToString(), opset=OPSET)


def test_every_truncated_model_is_refused() -> None:
    content = TINY.SerializeToString()
    for size in range(len(content)):
        assert_refused(content[:size], ".")


def test_a_domain_that_is_no_text_is_refused() -> None:
    assert_refused(b"\x42\x03\x0a\x01\xff", "utf-8")
