"""Labels of a spec in another order than those of the graph are refused, whichever way the graph names them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from export.sources.onnx_file.graph import ForeignGraph, read_graph
from export.sources.onnx_file.labels import check_attributes, check_label_outputs
from export.sources.onnx_file.source import load
from tests.export.sources.onnx_file.graphs import golden, model_of, options, value, written
from tests.export.sources.onnx_file.test_source import TABLE, sklearn_case

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]])


def classifier(folder: Path, **labels: Any) -> ForeignGraph:
    node = helper.make_node(
        "LinearClassifier", ["X"], ["label", "scores"], domain="ai.onnx.ml", coefficients=[1.0] * 12, **labels
    )
    kind = TensorProto.STRING if "classlabels_strings" in labels else TensorProto.INT64
    outputs = [value("label", kind, "n"), value("scores", TensorProto.FLOAT, "n", 3)]
    model = model_of([node], [value("X", TensorProto.FLOAT, "n", 4)], outputs)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return read_graph(written(folder, model))


def encoder(folder: Path, values: list[str]) -> ForeignGraph:
    nodes = [
        helper.make_node("ArgMax", ["scores_in"], ["index"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder", ["index"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2], values_strings=values
        ),
        helper.make_node("Identity", ["scores_in"], ["scores"]),
    ]
    outputs = [value("label", TensorProto.STRING, "n"), value("scores", TensorProto.FLOAT, "n", 3)]
    model = model_of(nodes, [value("scores_in", TensorProto.FLOAT, "n", 3)], outputs)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return read_graph(written(folder, model))


def test_labels_of_nodes(tmp_path: Path) -> None:
    for graph in (
        classifier(tmp_path, classlabels_strings=["ant", "bee", "cat"]),
        encoder(tmp_path, ["ant", "bee", "cat"]),
    ):
        check_attributes(graph, ("ant", "bee", "cat"))
        # Other names for all of them, or another number of labels, which the shapes of the outputs decide.
        check_attributes(graph, ("Ameise", "Biene", "Katze"))
        check_attributes(graph, ("bee", "ant"))
        for labels in (("bee", "ant", "cat"), ("ant", "bee", "dog")):
            with pytest.raises(ValueError, match=f"head. are {', '.join(labels)}, those of the graph are ant, bee, "):
                check_attributes(graph, labels)
    check_attributes(classifier(tmp_path, classlabels_ints=[0, 1, 2]), ("ant", "bee", "cat"))
    with pytest.raises(ValueError, match="are 2, 1, 0, those of the graph are 0, 1, 2"):
        check_attributes(classifier(tmp_path, classlabels_ints=[0, 1, 2]), ("2", "1", "0"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["a", "b", "c", "b"], None),
        (["b", "a", "c", "b"], "label 0 of .head. is 'a', the graph's output 'label' calls it 'b'"),
        (["a", "c", "c", "b"], "label 1 of .head. is 'b', the graph's output 'label' calls it 'c'"),
        # No function of the best score, other names, and another number of rows.
        (["a", "b", "a", "x"], "label 2 of .head. is 'c', the graph's output 'label' calls it 'a'"),
        (["x", "a", "b", "c"], None),
        (["a", "b"], None),
    ],
)
def test_label_outputs(given: list[str], sentence: str | None, tmp_path: Path) -> None:
    graph = classifier(tmp_path, classlabels_strings=["a", "b", "c"])
    answers = [(SCORES, {"label": np.array(given, object)})]
    if sentence is None:
        check_label_outputs(graph, ("a", "b", "c"), answers)
    else:
        with pytest.raises(ValueError, match=sentence):
            check_label_outputs(graph, ("a", "b", "c"), answers)


def test_an_output_that_is_no_function_of_the_best_score_is_left_alone(tmp_path: Path) -> None:
    graph = classifier(tmp_path, classlabels_strings=["a", "b", "c"])
    scores = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    check_label_outputs(graph, ("a", "b", "c"), [(scores, {"label": np.array(["a", "b"], object)})])


@pytest.mark.parametrize("kind", ["forest of text labels", "network of text labels"])
def test_scikit_learn_labels_in_another_order_are_refused(kind: str, tmp_path: Path) -> None:
    model, graph, x = sklearn_case(kind)
    cases = [{"X": rows, "probabilities": model.predict_proba(rows).astype(np.float32)} for rows in (x, x[:3])]
    path, file = written(tmp_path, graph), golden(tmp_path, *cases)
    load(options(path, file, TABLE + 'head = {kind = "labels", labels = ["no", "yes"]}'))
    with pytest.raises(ValueError, match="in the order of the graph"):
        load(options(path, file, TABLE + 'head = {kind = "labels", labels = ["yes", "no"]}'))
