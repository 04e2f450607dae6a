"""Scores are those of the whole test split, and every deviation is found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from export.candidate import Candidate, ExportError
from export.metric import check_metric
from tests.export.conftest import Candidates


class Biased:
    """A session that prefers the first label."""

    def __init__(self, candidate: Candidate, bias: float) -> None:
        self.manifest, self.honest, self.bias = candidate.manifest, candidate.session, np.float32(bias)

    def run(self, inputs: Any, outputs: Any = None) -> dict[str, Any]:
        answers = self.honest.run(inputs, outputs)
        answers["logits"][..., 0] += self.bias
        return answers


def test_the_accuracy_is_counted_over_the_whole_split(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    split = candidate.run.test
    with torch.no_grad():
        logits = candidate.run.model(torch.from_numpy(split.inputs["images"]))
    expected = float((logits.argmax(-1).numpy() == split.targets).mean())
    of_torch, of_graph = check_metric(candidate)["accuracy"]
    assert of_torch == of_graph == pytest.approx(expected)


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-tagger", "tiny-language"])
def test_a_graph_that_scores_otherwise_is_refused(candidates: Candidates, name: str) -> None:
    candidate = replace(candidates(name))
    candidate.__dict__["session"] = Biased(candidates(name), 0.5)
    with pytest.raises(ExportError, match=r"metric: (loss|accuracy|step_accuracy) of the graph .* PyTorch had"):
        check_metric(candidate)


def test_a_generator_is_judged_by_its_discriminator(candidates: Candidates) -> None:
    of_torch, of_graph = check_metric(candidates("tiny-gan"))["realness"]
    assert of_torch == pytest.approx(of_graph, abs=1e-6)
    assert 0 < of_torch < 1
