"""Operators of `ai.onnx.ml` are admitted by name, with outputs of bounded size."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, defs, helper

from benchmarks.proof.seeds import LEAVES, NODES, machine_learning_graphs
from service.operators import check_operators
from service.opsets.machine_learning import MAX_COLUMNS, OPERATORS

OPSET = 20


def model_of(*nodes: onnx.NodeProto, version: int | None = 3) -> bytes:
    """A model of three columns of floats."""
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])], [])
    imports = [helper.make_opsetid("", OPSET), *([helper.make_opsetid("ai.onnx.ml", version)] if version else [])]
    return helper.make_model(graph, ir_version=10, opset_imports=imports).SerializeToString()


def node(operator: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, ["x"], ["y"], domain="ai.onnx.ml", **attributes)


def assert_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_operators(content, opset=OPSET)


@pytest.mark.parametrize("name", machine_learning_graphs(OPSET))
def test_graphs_of_every_kind_are_admitted_and_loaded(name: str) -> None:
    content = machine_learning_graphs(OPSET)[name].SerializeToString()
    check_operators(content, opset=OPSET)
    ort.InferenceSession(content, providers=["CPUExecutionProvider"])


def test_admitted_operators_exist_and_make_tensors() -> None:
    theirs = {schema.name for schema in defs.get_all_schemas() if schema.domain == "ai.onnx.ml"}
    assert theirs - OPERATORS == {"CastMap", "DictVectorizer", "SVMClassifier", "SVMRegressor", "ZipMap"}
    assert theirs > OPERATORS


@pytest.mark.parametrize("name", ["CastMap", "DictVectorizer", "SVMClassifier", "Nonsense", "Relu", ""])
def test_operator_that_is_not_admitted_is_refused(name: str) -> None:
    assert_refused(
        model_of(node(name)), rf"node '' \({name}\) is not an admitted operator of ai.onnx.ml; those are Arr"
    )


def test_zip_map_is_refused_with_the_way_out() -> None:
    assert_refused(model_of(node("ZipMap")), r"\(ZipMap\) makes maps, expected tensors; convert with zipmap=False")


def test_operator_of_a_domain_that_is_not_imported_is_refused() -> None:
    """onnxruntime would take its newest opset of the domain."""
    scaler = node("Scaler", offset=[0.0], scale=[1.0])
    check_operators(model_of(scaler), opset=OPSET)
    assert_refused(model_of(scaler, version=None), "is of domain 'ai.onnx.ml', of which no opset is imported")


def test_name_of_the_other_domain_is_refused() -> None:
    assert_refused(model_of(helper.make_node("Scaler", ["x"], ["y"])), r"\(Scaler\) is no standard ONNX operator")


def test_subgraph_is_refused() -> None:
    body = helper.make_graph([], "inner", [], [])
    assert_refused(model_of(node("Scaler", then_branch=body)), "has a subgraph in attribute 'then_branch'")


@pytest.mark.parametrize(
    ("operator", "name"),
    [("TreeEnsembleRegressor", "n_targets"), ("LinearRegressor", "targets"), ("FeatureVectorizer", "inputdimensions")],
)
def test_number_of_columns_is_bounded(operator: str, name: str) -> None:
    targets = {f"target_{key}": values for key, values in LEAVES.items()}
    others = NODES | targets if operator.startswith("Tree") else {}

    def sized(size: int) -> bytes:
        return model_of(node(operator, **{name: [size] if name == "inputdimensions" else size}, **others))

    check_operators(sized(MAX_COLUMNS), opset=OPSET)
    for size in (MAX_COLUMNS + 1, 0, -1, 1 << 40):
        assert_refused(sized(size), rf"\({operator}\): '{name}' is {size}, expected 1 to {MAX_COLUMNS} in sum")


def test_categories_are_no_sizes() -> None:
    large = [1 << 40, -(1 << 40)]
    encoder = node("LabelEncoder", keys_floats=[1.0, 2.0], values_int64s=large, default_int64=1 << 50)
    check_operators(model_of(encoder), opset=OPSET)
    check_operators(model_of(node("OneHotEncoder", cats_int64s=large)), opset=OPSET)


def test_size_out_of_a_table_is_refused() -> None:
    encoder = node("LabelEncoder", keys_floats=[1.0], values_int64s=[1 << 40])
    reshaped = helper.make_node("Reshape", ["y", "one"], ["size"])
    one = helper.make_node("Constant", [], ["one"], value=onnx.numpy_helper.from_array(np.array([1])))
    window = helper.make_node("ConstantOfShape", ["size"], ["z"])
    assert_refused(model_of(encoder, one, reshaped, window), r"a size is computed by node '' \(LabelEncoder\)")
    shaped = helper.make_node("Shape", ["y"], ["size"])
    check_operators(model_of(encoder, shaped, window), opset=OPSET)
