"""Mutants of the structure of trees: branches, features, comparisons and classes of an ensemble of ai.onnx.ml.

An ensemble may have any number of nodes, so some are chosen, evenly spaced. A branch is never led elsewhere than to the
other child of its node, because a tree that leads back to itself does not end. Thresholds and weights of leaves are
values (export.mutation.stored).
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import onnx

Edit = Callable[[onnx.NodeProto], None]
ENSEMBLES = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor"})
MAX_NODES = 8
MODES = {
    b"BRANCH_LEQ": b"BRANCH_LT",
    b"BRANCH_LT": b"BRANCH_LEQ",
    b"BRANCH_GTE": b"BRANCH_GT",
    b"BRANCH_GT": b"BRANCH_GTE",
}
LEAF = b"LEAF"
TRUE, FALSE, FEATURES, MODE = "nodes_truenodeids", "nodes_falsenodeids", "nodes_featureids", "nodes_modes"


def tree_edits(node: onnx.NodeProto) -> Iterator[tuple[str, str, Edit]]:
    """The edits of an ensemble, each as kind, place and edit."""
    lists = {attribute.name: attribute for attribute in node.attribute}
    modes = lists[MODE].strings
    branches = [place for place, mode in enumerate(modes) if mode != LEAF]
    for place in _spread(branches):
        yield "branches swapped", f"node {place}", partial(_swap, place=place)
        yield "feature", f"node {place}", partial(_shift, name=FEATURES, place=place)
        yield "comparison", f"node {place}", partial(_compare_otherwise, place=place)
    for name in ("class_ids", "target_ids"):
        for place in _spread(range(len(lists[name].ints))) if name in lists else ():
            yield "class", f"leaf {place}", partial(_shift, name=name, place=place)


def _spread(places: "list[int] | range") -> list[int]:
    return [
        places[i] for i in np.unique(np.linspace(0, len(places) - 1, min(MAX_NODES, len(places))).round().astype(int))
    ]


def _ints(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    [attribute] = [one for one in node.attribute if one.name == name]
    return attribute


def _swap(node: onnx.NodeProto, *, place: int) -> None:
    on_true, on_false = _ints(node, TRUE).ints, _ints(node, FALSE).ints
    on_true[place], on_false[place] = on_false[place], on_true[place]


def _shift(node: onnx.NodeProto, *, name: str, place: int) -> None:
    """The next number of those that the ensemble uses, and after the last one the first."""
    ints = _ints(node, name).ints
    used = sorted(set(ints))
    ints[place] = used[(used.index(ints[place]) + 1) % len(used)]


def _compare_otherwise(node: onnx.NodeProto, *, place: int) -> None:
    modes = _ints(node, MODE).strings
    modes[place] = MODES.get(modes[place], b"BRANCH_LEQ")
