"""A forest of random trees as a graph, and what it computes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

NUM_TREES, NUM_FEATURES, NUM_CLASSES = 3, 4, 3
PARENTS, LEAVES = range(3), range(3, 7)


def forest() -> onnx.ModelProto:
    """Complete trees of two levels with random thresholds and leaves."""
    rng = np.random.default_rng(0)
    ids = [*PARENTS, *LEAVES] * NUM_TREES
    is_leaf = [node in LEAVES for node in ids]
    trees = np.repeat(range(NUM_TREES), len(PARENTS) + len(LEAVES)).tolist()
    leaves = [(tree, node) for tree, node, leaf in zip(trees, ids, is_leaf, strict=True) if leaf]
    attributes: dict[str, Any] = {
        "nodes_treeids": trees,
        "nodes_nodeids": ids,
        "nodes_modes": ["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf],
        "nodes_featureids": [0 if leaf else int(rng.integers(NUM_FEATURES)) for leaf in is_leaf],
        "nodes_values": np.where(is_leaf, 0, rng.normal(size=len(ids))).astype(np.float32).tolist(),
        "nodes_truenodeids": [0 if leaf else 2 * node + 1 for node, leaf in zip(ids, is_leaf, strict=True)],
        "nodes_falsenodeids": [0 if leaf else 2 * node + 2 for node, leaf in zip(ids, is_leaf, strict=True)],
        "class_treeids": [tree for tree, _ in leaves],
        "class_nodeids": [node for _, node in leaves],
        "class_ids": [number % NUM_CLASSES for number in range(len(leaves))],
        "class_weights": rng.random(len(leaves)).astype(np.float32).tolist(),
        "classlabels_int64s": list(range(NUM_CLASSES)),
        "post_transform": "NONE",
    }
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["labels", "scores"], name="forest", domain="ai.onnx.ml", **attributes
    )
    graph = helper.make_graph(
        [node],
        "forest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", NUM_FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", NUM_CLASSES])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def scores(model: bytes, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(["scores"], {"x": x})[0]
