"""Trees that do not end, or are deeper than a bound, are refused."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from service.operators import check_operators
from service.opsets.trees import MAX_DEPTH

OPSET = 20
# Node 4 leads back to node 1 for a row whose last column is 77.
CIRCLE: dict[str, Any] = {
    "nodes_treeids": [0] * 6,
    "nodes_nodeids": [0, 1, 2, 3, 4, 5],
    "nodes_featureids": [2] * 6,
    "nodes_modes": ["BRANCH_LEQ", "BRANCH_EQ", "LEAF", "LEAF", "BRANCH_EQ", "LEAF"],
    "nodes_values": [10.0, 77.0, 0.0, 0.0, 77.0, 0.0],
    "nodes_truenodeids": [2, 4, 0, 0, 1, 0],
    "nodes_falsenodeids": [1, 3, 0, 0, 5, 0],
    "target_treeids": [0] * 3,
    "target_nodeids": [2, 3, 5],
    "target_ids": [0] * 3,
    "target_weights": [1.0, 2.0, 3.0],
    "n_targets": 1,
}
TREE = CIRCLE | {"nodes_truenodeids": [2, 4, 0, 0, 3, 0]}


def tensor(kind: int, *values: float) -> onnx.TensorProto:
    return helper.make_tensor("t", kind, [len(values)], values)


ENSEMBLE: dict[str, Any] = {
    "n_targets": 1,
    "tree_roots": [0],
    "nodes_featureids": [0, 1],
    "nodes_modes": tensor(TensorProto.UINT8, 0, 0),
    "nodes_splits": tensor(TensorProto.FLOAT, 1.0, 0.5),
    "nodes_truenodeids": [1, 0],
    "nodes_trueleafs": [0, 1],
    "nodes_falsenodeids": [0, 1],
    "nodes_falseleafs": [1, 1],
    "leaf_targetids": [0, 0],
    "leaf_weights": tensor(TensorProto.FLOAT, 0.5, 2.0),
}


def model_of(operator: str, attributes: dict[str, Any]) -> bytes:
    node = helper.make_node(operator, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])]
    imports = [
        helper.make_opsetid("", OPSET),
        helper.make_opsetid("ai.onnx.ml", 5 if operator == "TreeEnsemble" else 3),
    ]
    graph = helper.make_graph([node], "g", inputs, outputs)
    return helper.make_model(graph, ir_version=10, opset_imports=imports).SerializeToString()


def regressor(attributes: dict[str, Any], **changes: Any) -> bytes:
    return model_of("TreeEnsembleRegressor", attributes | changes)


def ensemble(**changes: Any) -> bytes:
    return model_of("TreeEnsemble", ENSEMBLE | changes)


def assert_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_operators(content, opset=OPSET)


def run(content: bytes, *row: float) -> float:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"x": np.array([row], np.float32)})
    return float(values[0, 0])


def test_tree_whose_branches_share_a_child_is_admitted() -> None:
    content = regressor(TREE)
    check_operators(content, opset=OPSET)
    assert [run(content, 0, 0, value) for value in (0, 11, 77)] == [1.0, 2.0, 2.0]


def test_branch_back_to_a_node_above_is_refused() -> None:
    """onnxruntime loads this tree, answers other rows, and never answers one with 77."""
    content = regressor(CIRCLE)
    assert run(content, 0, 0, 11) == 2.0
    assert_refused(
        content, r"\(TreeEnsembleRegressor\) has a tree that never ends: a branch leads back to a node above"
    )
    assert_refused(regressor(TREE, nodes_falsenodeids=[0, 3, 0, 0, 5, 0]), "has a tree that never ends")


def test_classifier_is_checked_too() -> None:
    classes = {name.replace("target_", "class_"): value for name, value in CIRCLE.items() if name != "n_targets"}
    assert_refused(model_of("TreeEnsembleClassifier", classes), "has a tree that never ends")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes_nodeids": [0, 1, 2, 3, 4, 4]}, "has a node twice in one tree"),
        ({"nodes_falsenodeids": [1, 3, 0, 0, 9, 0]}, "has a branch to node 9 of tree 0, which does not exist"),
        ({"nodes_treeids": [0, 0, 0, 1, 0, 0]}, "has a branch to node 3 of tree 0, which does not exist"),
        ({"nodes_modes": ["LEAF"]}, "has lists of nodes of different lengths, or none: .*'nodes_modes': 1"),
        ({"nodes_truenodeids": [2]}, "has lists of nodes of different lengths, or none: .*'nodes_truenodeids': 1"),
    ],
)
def test_tree_that_is_incomplete_is_refused(change: dict[str, Any], message: str) -> None:
    assert_refused(regressor(TREE, **change), message)


def test_ensemble_without_nodes_is_refused() -> None:
    for operator in ("TreeEnsembleRegressor", "TreeEnsemble"):
        assert_refused(model_of(operator, {"n_targets": 1}), "has lists of nodes of different lengths, or none")


def long_tree(length: int) -> bytes:
    """A tree whose false branch goes one level down each time."""
    ids = [*range(length + 1)]
    modes = ["BRANCH_LEQ"] * (length - 1) + ["LEAF"] * 2
    return regressor(
        TREE,
        nodes_treeids=[0] * len(ids),
        nodes_nodeids=ids,
        nodes_featureids=[0] * len(ids),
        nodes_modes=modes,
        nodes_values=[0.0] * len(ids),
        nodes_truenodeids=[length] * (length - 1) + [0, 0],
        nodes_falsenodeids=[*range(1, length), 0, 0],
    )


def test_depth_is_bounded() -> None:
    check_operators(long_tree(MAX_DEPTH), opset=OPSET)
    assert_refused(long_tree(MAX_DEPTH + 1), f"has a tree of {MAX_DEPTH + 1} levels, expected at most {MAX_DEPTH}")


def test_ensemble_is_admitted() -> None:
    content = ensemble()
    check_operators(content, opset=OPSET)
    assert [run(content, *row) for row in ((0, 0, 0), (0, 1, 0), (2, 0, 0))] == [0.5, 2.0, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes_trueleafs": [0, 0], "nodes_truenodeids": [1, 0]}, "has a node that two branches or roots lead to"),
        ({"tree_roots": [0, 0]}, "has a node that two branches or roots lead to"),
        ({"tree_roots": [0, 1]}, "has a node that two branches or roots lead to"),
        ({"tree_roots": [5]}, "has root 5, which is absent"),
        ({"tree_roots": [-1]}, "has root -1, which is absent"),
        ({"nodes_truenodeids": [2, 0]}, "has a branch to node 2, which is absent"),
        ({"nodes_falsenodeids": [0, 7]}, "has a branch to leaf 7, which is absent"),
        ({"nodes_falsenodeids": [0, -1]}, "has a branch to leaf -1, which is absent"),
        ({"nodes_trueleafs": [0]}, "has lists of nodes of different lengths, or none"),
    ],
)
def test_ensemble_that_is_no_set_of_trees_is_refused(change: dict[str, Any], message: str) -> None:
    assert_refused(ensemble(**change), message)


def test_circle_that_no_root_reaches_is_refused() -> None:
    three = {"nodes_featureids": [0, 0, 0], "nodes_falsenodeids": [0, 0, 0], "nodes_falseleafs": [1, 1, 1]}
    assert_refused(ensemble(**three, nodes_truenodeids=[0, 2, 1], nodes_trueleafs=[1, 0, 0]), "never ends")
