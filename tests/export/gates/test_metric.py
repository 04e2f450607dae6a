"""The whole test split is compared element by element, and a graph that differs on one item is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.candidate import Candidate
from export.errors import ExportError
from export.gates import metric
from export.gates.metric import check_metric
from tests.export.conftest import Candidates
from tests.export.edits import constant, node, triggered


class BiasedSession:
    """A session that adds a bias to the first label."""

    def __init__(self, candidate: Candidate, bias: float) -> None:
        self.manifest, self.session, self.bias = candidate.manifest, candidate.session, np.float32(bias)

    def run(self, inputs: Any, outputs: Any = None) -> dict[str, Any]:
        outputs_by_name = self.session.run(inputs, outputs)
        outputs_by_name["logits"][..., 0] += self.bias
        return outputs_by_name


def test_accuracy_covers_the_whole_split(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    split = candidate.source.examples
    with torch.no_grad():
        logits = candidate.source.run.model(torch.from_numpy(split.inputs["images"]))
    expected = float((logits.argmax(-1).numpy() == split.targets).mean())
    torch_score, graph_score = check_metric(candidate).scores["accuracy"]
    assert torch_score == graph_score == pytest.approx(expected)


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-tagger", "tiny-language"])
def test_a_graph_with_other_outputs_is_refused(candidates: Candidates, name: str) -> None:
    candidate = replace(candidates(name))
    candidate.__dict__["session"] = BiasedSession(candidates(name), 0.5)
    with pytest.raises(ExportError, match=r"metric: output 'logits' differs by 0.5.* on the test split, .*: item"):
        check_metric(candidate)


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-gan", "tiny-text", "tiny-language"])
def test_every_item_of_the_split_is_compared(candidates: Candidates, name: str) -> None:
    coverage = check_metric(candidates(name)).coverage
    assert coverage.num_items == len(candidates(name).source.examples)
    assert set(coverage.max_differences) <= set(candidates(name).manifest.tolerance)


def test_one_item_that_differs_without_a_change_of_the_scores_is_refused(candidates: Candidates) -> None:
    """The bias is the same for all labels of the item, so neither its loss nor its label changes."""
    candidate = candidates("tiny-picture")
    image = candidate.source.examples.inputs["images"][37]

    def is_item(graph: onnx.GraphProto) -> str:
        distance = node(
            graph,
            "Abs",
            [
                node(
                    graph,
                    "Sub",
                    [
                        node(graph, "Cast", ["images"], to=onnx.TensorProto.FLOAT),
                        constant(graph, image[None], "float32"),
                    ],
                )
            ],
        )
        nearest = node(graph, "ReduceSum", [distance, constant(graph, [1, 2], "int64")], keepdims=0)
        equal = node(graph, "Equal", [nearest, constant(graph, 0, "float32")])
        return node(graph, "Unsqueeze", [equal, constant(graph, [1], "int64")])

    with pytest.raises(
        ExportError, match=r"metric: output 'logits' differs by 0.01 .* on the test split, .*: item 37: "
    ):
        check_metric(triggered(candidate, is_item, 0.01))


def test_a_better_metric_than_measured_is_refused(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    metrics = {**candidate.source.run.checkpoint.metrics, "test_accuracy": 0.99}
    run = replace(candidate.source.run, checkpoint=replace(candidate.source.run.checkpoint, metrics=metrics))
    with pytest.raises(ExportError, match=r"metric: accuracy of the graph on the test split is .*, training had 0.99"):
        check_metric(replace(candidate, source=replace(candidate.source, run=run)))


def test_the_discriminator_scores_a_generator(candidates: Candidates) -> None:
    torch_score, graph_score = check_metric(candidates("tiny-gan")).scores["realness"]
    assert torch_score == pytest.approx(graph_score, abs=1e-6)
    assert 0 < torch_score < 1


def test_what_float32_rounding_explains_is_no_difference(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    strict = {
        name: tolerance.model_copy(update={"atol": 0.0, "rtol": 1e-12})
        for name, tolerance in candidate.manifest.tolerance.items()
    }
    check_metric(replace(candidate, manifest=candidate.manifest.model_copy(update={"tolerance": strict})))


@pytest.mark.parametrize(("score", "is_accepted"), [(0.001, True), (0.00101, False)])
def test_a_score_may_differ_by_a_tenth_of_a_percentage_point(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch, score: float, is_accepted: bool
) -> None:
    monkeypatch.setattr(metric, "_scores", lambda candidate, pair: [{"share": 0.0}, {"share": score}])
    if is_accepted:
        assert check_metric(candidates("tiny-lstm")).scores == {"share": (0.0, score)}
        return
    with pytest.raises(ExportError, match=r"metric: share of the graph .*, PyTorch had 0\.0"):
        check_metric(candidates("tiny-lstm"))
