"""The labels that a graph names itself, compared with those of the spec: scores are in the order of the graph.

Classifiers of ai.onnx.ml hold their labels as attributes. Other graphs give the label of each item as an output, which
is compared with the label of the highest score of every golden item.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx

from export.source import Array
from export.sources.onnx_file.graph import ForeignGraph

CLASSIFIERS = {"LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"}
ATTRIBUTES = {"classlabels_strings", "classlabels_ints", "classlabels_int64s"}
# A label encoder behind an ArgMax: the labels are the values of the indices 0, 1, ...
KEYS, VALUES = "keys_int64s", {"values_strings", "values_int64s"}
# Scores that differ by less are a tie, in which the graph may choose either.
MIN_LEAD = 1e-5


def check_attributes(graph: ForeignGraph, labels: Sequence[str]) -> None:
    """Raise ValueError if a node of the graph has the labels of the spec, or some of them, in another order."""
    for found in node_labels(graph.model.graph):
        if len(found) == len(labels):
            _check_order(graph.path, labels, found)


def check_label_outputs(
    graph: ForeignGraph, labels: Sequence[str], answers: Iterable[tuple[Array, dict[str, Array]]]
) -> None:
    """Raise ValueError if an output of labels contradicts the scores, given as probabilities [batch, labels] of a case
    with the outputs of the graph for it."""
    cases = list(answers)
    for value in graph.outputs:
        is_label = value.dtype == "string" or value.dtype.startswith(("int", "uint"))
        if not is_label or len(value.axes) not in {1, 2}:
            continue
        seen: dict[int, set[str]] = {}
        for probabilities_BL, outputs in cases:
            if outputs[value.name].size != len(probabilities_BL):
                break
            ordered_BL = np.sort(probabilities_BL, axis=-1)
            is_clear = ordered_BL[:, -1] - ordered_BL[:, -2] > MIN_LEAD if len(labels) > 1 else []
            given = outputs[value.name].reshape(-1)
            for row in np.flatnonzero(is_clear).tolist():
                seen.setdefault(int(probabilities_BL[row].argmax()), set()).add(str(given[row]))
        # An output that is no function of the best score, or names other things, is no output of its label.
        if all(len(names) == 1 for names in seen.values()) and set().union(*seen.values()) <= set(labels):
            found = list(labels)
            for index, [name] in seen.items():
                found[index] = name
            if found != list(labels):
                index = next(i for i in seen if found[i] != labels[i])
                raise ValueError(
                    f"{graph.path}: the label {index} of [head] is {labels[index]!r}, the graph's output "
                    f"{value.name!r} calls it {found[index]!r}; name the labels in the order of the graph"
                )


def node_labels(graph: onnx.GraphProto) -> Iterable[list[str]]:
    """The labels of each classifier, and of each label encoder whose keys are 0, 1, ..."""
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type in CLASSIFIERS:
            names = ATTRIBUTES & set(attributes)
        elif node.op_type == "LabelEncoder" and KEYS in attributes:
            keys = list(attributes[KEYS].ints)
            names = VALUES & set(attributes) if keys == list(range(len(keys))) else set()
        else:
            continue
        for name in names:
            attribute = attributes[name]
            found = [text.decode(errors="replace") for text in attribute.strings] or [str(i) for i in attribute.ints]
            if found:
                yield found


def _check_order(path: Path, labels: Sequence[str], found: Sequence[str]) -> None:
    # Labels of which the graph has none are other names for them, in its order.
    if list(found) != list(labels) and set(found) & set(labels):
        raise ValueError(
            f"{path}: the labels of [head] are {_listed(labels)}, those of the graph are {_listed(found)}; name them "
            "in the order of the graph, in which its scores are"
        )


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
