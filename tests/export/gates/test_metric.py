"""Scores cover the whole test split, and a graph that scores differently is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.metric import check_metric
from tests.export.conftest import Candidates


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
    split = candidate.run.test
    with torch.no_grad():
        logits = candidate.run.model(torch.from_numpy(split.inputs["images"]))
    expected = float((logits.argmax(-1).numpy() == split.targets).mean())
    torch_score, graph_score = check_metric(candidate)["accuracy"]
    assert torch_score == graph_score == pytest.approx(expected)


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-tagger", "tiny-language"])
def test_a_graph_with_another_score_is_refused(candidates: Candidates, name: str) -> None:
    candidate = replace(candidates(name))
    candidate.__dict__["session"] = BiasedSession(candidates(name), 0.5)
    with pytest.raises(ExportError, match=r"metric: (loss|accuracy|step_accuracy) of the graph .* PyTorch had"):
        check_metric(candidate)


def test_the_discriminator_scores_a_generator(candidates: Candidates) -> None:
    torch_score, graph_score = check_metric(candidates("tiny-gan"))["realness"]
    assert torch_score == pytest.approx(graph_score, abs=1e-6)
    assert 0 < torch_score < 1
