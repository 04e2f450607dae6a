"""Graphs of `ai.onnx.ml`, with strings and metadata, from which the search for misread files starts."""

import onnx
from onnx import TensorProto, helper

from service.opsets.imports import MACHINE_LEARNING

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def _node(operator: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, domain=MACHINE_LEARNING, **attributes)


def _value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _model(graph: onnx.GraphProto, opset: int, version: int) -> onnx.ModelProto:
    """A model as skl2onnx writes it: the standard domain is imported twice."""
    imports = [helper.make_opsetid(MACHINE_LEARNING, version), *[helper.make_opsetid("", opset)] * 2]
    model = helper.make_model(graph, ir_version=10, opset_imports=imports)
    model.metadata_props.add(key="author", value="駅")
    return model


def _linear(opset: int) -> onnx.ModelProto:
    nodes = [
        _node("Imputer", ["x"], ["imputed"], imputed_value_floats=[0.5], replaced_value_float=-1.0),
        _node("Scaler", ["imputed"], ["scaled"], offset=[0.0, 1.0, 2.0], scale=[1.0, 2.0, 0.5]),
        _node("Normalizer", ["scaled"], ["normalized"], norm="L2"),
        _node("Binarizer", ["x"], ["binary"], threshold=0.5),
        _node("FeatureVectorizer", ["normalized", "binary"], ["features"], inputdimensions=[3, 3]),
        _node(
            "LinearClassifier",
            ["features"],
            ["label", "scores"],
            coefficients=[0.1] * 12,
            intercepts=[0.5, -0.5],
            classlabels_strings=["no", "yes"],
            post_transform="SOFTMAX",
        ),
        _node("LinearRegressor", ["features"], ["value"], coefficients=[0.1] * 6, intercepts=[1.0], targets=1),
        helper.make_node("Equal", ["label", "words"], ["is_word"]),
    ]
    outputs = [
        _value("label", STRING, "n"),
        _value("scores", FLOAT, "n", 2),
        _value("value", FLOAT, "n", 1),
        _value("is_word", TensorProto.BOOL, "n"),
    ]
    words = helper.make_tensor("words", STRING, [1], ["駅".encode()])
    graph = helper.make_graph(nodes, "linear", [_value("x", FLOAT, "n", 3)], outputs, [words])
    return _model(graph, opset, 1)


NODES = {
    "nodes_treeids": [0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2, 0, 1, 2],
    "nodes_featureids": [0, 0, 0, 1, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
    "nodes_values": [1.0, 0.0, 0.0, 0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0, 1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0, 2, 0, 0],
}
LEAVES = {"treeids": [0, 0, 1, 1], "nodeids": [1, 2, 1, 2], "ids": [0, 1, 0, 1], "weights": [1.0, 0.25, 0.5, 2.0]}


def _forest(opset: int) -> onnx.ModelProto:
    targets = {f"target_{name}": values for name, values in LEAVES.items()}
    classes = {f"class_{name}": values for name, values in LEAVES.items()}
    nodes = [
        _node("TreeEnsembleRegressor", ["x"], ["values"], n_targets=2, **NODES, **targets),
        _node("TreeEnsembleClassifier", ["x"], ["label", "scores"], classlabels_int64s=[3, 300], **NODES, **classes),
        _node("ArrayFeatureExtractor", ["values", "column"], ["second"]),
    ]
    outputs = [_value("label", INT64, "n"), _value("scores", FLOAT, "n", 2), _value("second", FLOAT, "n", 1)]
    column = helper.make_tensor("column", INT64, [1], [1])
    return _model(helper.make_graph(nodes, "forest", [_value("x", FLOAT, "n", 3)], outputs, [column]), opset, 3)


def _categories(opset: int) -> onnx.ModelProto:
    nodes = [
        _node("OneHotEncoder", ["words"], ["one_hot"], cats_strings=["red", "green"], zeros=1),
        _node("LabelEncoder", ["words"], ["numbers"], keys_strings=["red", "green"], values_int64s=[7, 1 << 40]),
        helper.make_node("Concat", ["words", "more"], ["all"], axis=1),
    ]
    outputs = [
        _value("one_hot", FLOAT, "n", 1, 2),
        _value("numbers", INT64, "n", 1),
        _value("all", STRING, 1, 2),
    ]
    more = helper.make_tensor("more", STRING, [1, 1], [b"blue"])
    return _model(helper.make_graph(nodes, "categories", [_value("words", STRING, "n", 1)], outputs, [more]), opset, 2)


def _ensemble(opset: int) -> onnx.ModelProto:
    node = _node(
        "TreeEnsemble",
        ["x"],
        ["values"],
        n_targets=1,
        aggregate_function=1,
        tree_roots=[0],
        nodes_featureids=[0, 1],
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [2], [0, 0]),
        nodes_splits=helper.make_tensor("splits", FLOAT, [2], [1.0, 0.5]),
        nodes_truenodeids=[1, 0],
        nodes_trueleafs=[0, 1],
        nodes_falsenodeids=[0, 1],
        nodes_falseleafs=[1, 1],
        leaf_targetids=[0, 0],
        leaf_weights=helper.make_tensor("weights", FLOAT, [2], [0.5, 2.0]),
    )
    outputs = [_value("values", FLOAT, "n", 1)]
    return _model(helper.make_graph([node], "ensemble", [_value("x", FLOAT, "n", 3)], outputs), opset, 5)


def machine_learning_graphs(opset: int) -> dict[str, onnx.ModelProto]:
    return {
        "linear": _linear(opset),
        "forest": _forest(opset),
        "categories": _categories(opset),
        "ensemble": _ensemble(opset),
    }
