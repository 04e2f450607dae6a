"""The whole test split is compared element by element, and a graph that differs on one item is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.gates import metric
from export.gates.metric import check_metric
from export.precision.variant import variant_of
from tests.export.conftest import Candidates, make_candidate, registered_run
from tests.export.edits import constant, node, triggered
from training.checkpoint import load_run


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


def test_only_tf32_may_have_another_score_than_its_session(tmp_path: Path) -> None:
    """Of two labels closer than the tolerance, the reference takes the other; the precision gate judges that."""
    parent = make_candidate(load_run(registered_run(tmp_path / "random-digits")))

    def predict(inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = parent.session.run(inputs)
        rows, order = np.arange(len(outputs["logits"])), outputs["logits"].argsort(-1)
        second, first = order[:, -2], order[:, -1]
        is_close = outputs["logits"][rows, first] - outputs["logits"][rows, second] < 0.01
        rows, first, second = rows[is_close], first[is_close], second[is_close]
        for values in outputs.values():
            values[rows, first], values[rows, second] = values[rows, second], values[rows, first]
        return outputs

    def score(kind: Any) -> tuple[float, float]:
        source, graph = variant_of(parent.source, parent.model, kind, parent.manifest)
        return check_metric(build_candidate(replace(source, predict=predict), graph)).scores["accuracy"]

    assert score("tf32") == (0.95, 1.0)
    with pytest.raises(ExportError, match=r"metric: accuracy of the graph on the test split is 1\.00000, .* had 0\.95"):
        score("fp16")
