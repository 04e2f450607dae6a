"""A graph with frozen axes, unrolled layers or nodes in training mode is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import Tensor, nn

from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.gates.structure import check_structure
from tests.export.conftest import Candidates, make_candidate
from tests.export.tiny import CHANNELS, CLASSES, RECIPES, make_run, recipe


def edited(candidate: Candidate, change: str) -> Candidate:
    model = onnx.load_from_string(candidate.model)
    graph = model.graph
    match change:
        case "training":
            node = onnx.helper.make_node("Dropout", ["logits"], ["dropped"], name="dropout", training_mode=1)
            graph.node.append(node)
        case "loop":
            graph.node.append(onnx.helper.make_node("Scan", ["logits"], ["looped"]))
        case "random":
            graph.node.append(onnx.helper.make_node("RandomNormalLike", ["logits"], ["noise"], name="noise"))
        case "mask":
            graph.node.append(onnx.helper.make_node("Dropout", ["logits", "", "on"], ["dropped"], name="dropout"))
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "on"))
        case "renamed":
            graph.output[0].name = "scores"
        case "frozen":
            graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
        case "flat":
            del graph.output[0].type.tensor_type.shape.dim[1]
        case "silent":
            del graph.output[:]
        case "rank":
            del graph.input[0].type.tensor_type.shape.dim[2]
    return replace(candidate, model=model.SerializeToString())


def test_operators_are_counted_by_name(candidates: Candidates) -> None:
    operators = check_structure(candidates("tiny-lstm"))
    assert operators["LSTM"] == 2
    assert sum(operators.values()) < 30
    assert check_structure(candidates("tiny-picture"))["Conv"] == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("training", r"the service must not load this graph: node 'dropout' \(Dropout\) is in training mode"),
        ("mask", r"the service must not load this graph: node 'dropout' \(Dropout\) is in training mode"),
        ("random", r"the service must not load this graph: node 'noise' \(RandomNormalLike\) draws random numbers"),
        ("loop", r"the service must not load this graph: node '' \(Scan\) is control flow"),
        ("renamed", "the service must not load this graph: the output 'scores' is undefined"),
        ("rank", "input 'series' has shape .*declared"),
        (
            "frozen",
            r"input 'series': axis 'batch' is declared dynamic, but the graph has 3 \(shape \[3, 'steps', 3\], "
            r"declared \['batch', 'steps', 3\]\)",
        ),
        ("flat", r"output 'logits' has shape \['batch'\], declared \['batch', 4\]"),
        ("silent", r"the graph has no output 'logits'; it has \[\]"),
    ],
)
def test_a_changed_graph_is_refused(candidates: Candidates, change: str, expected: str) -> None:
    with pytest.raises(ExportError, match=f"structure: {expected}"):
        check_structure(edited(candidates("tiny-rnn"), change))


def test_a_recipe_may_admit_control_flow(candidates: Candidates) -> None:
    """Both branches of an If return the logits, so only the operator is refused, and its nodes are counted."""
    candidate = candidates("tiny-rnn")
    model = onnx.load_from_string(candidate.model)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["exact" if name == "logits" else name for name in node.output]
        node.input[:] = ["exact" if name == "logits" else name for name in node.input]
    branches = {
        f"{branch}_branch": onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["exact"], [f"{branch}_logits"])],
            branch,
            [],
            [onnx.helper.make_tensor_value_info(f"{branch}_logits", onnx.TensorProto.FLOAT, None)],
        )
        for branch in ("then", "else")
    }
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "condition"))
    graph.node.append(onnx.helper.make_node("If", ["condition"], ["logits"], name="choice", **branches))
    content = model.SerializeToString()
    with pytest.raises(ExportError, match=r"node 'choice' \(If\) is control flow"):
        check_structure(replace(candidate, model=content))
    source = replace(candidate.source, control_flow=True)
    operators = check_structure(build_candidate(source, content))
    assert (operators["If"], operators["Identity"]) == (1, 2)


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, CLASSES, 3, padding=1)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        return self.conv(series.transpose(1, 2))[:, :, 0] / lengths[:, None]


def test_one_dimensional_convolutions_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "tiny-conv", recipe("tiny-conv", "series-classifier", Convolution, max_steps=11))
    run = make_run(tmp_path / "tiny-conv", "tiny-conv")
    assert check_structure(make_candidate(run))["Conv"] == 1
