"""The domain holds what clients send today with a wide margin, and its ends are exact in float32."""

import numpy as np
import pytest
import torch

from export.gates.coverage.domain import choose_domain, largest_cell_value, largest_test_value
from tests.export.conftest import Candidates
from training.families import FAMILIES


@pytest.mark.parametrize("name", ["tiny-rnn", "tiny-tagger", "tiny-gan"])
def test_every_end_is_symmetric_and_exact(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    domain = choose_domain(candidate.run, candidate.manifest)
    assert set(domain) == {spec.name for spec in candidate.manifest.inputs if spec.dtype == "float32"}
    for bound in domain.values():
        assert bound.low == -bound.high
        assert np.float32(bound.high) == bound.high == 2.0 ** round(np.log2(bound.high))


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-text", "tiny-language"])
def test_only_float_inputs_have_a_domain_and_caches_have_none(candidates: Candidates, name: str) -> None:
    assert choose_domain(candidates(name).run, candidates(name).manifest) == {}


def test_a_series_may_have_thirty_times_the_values_of_the_test_split(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    largest = float(np.abs(candidate.run.test.inputs["series"]).max())
    assert largest_test_value(candidate.run, "series") == largest
    assert 30 * largest <= choose_domain(candidate.run, candidate.manifest)["series"].high < 60 * largest


def test_latents_reach_eight_standard_deviations(candidates: Candidates) -> None:
    assert choose_domain(candidates("tiny-gan").run, candidates("tiny-gan").manifest)["latents"].high == 8


def test_a_state_holds_what_the_model_returns(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    run, domain = candidate.run, choose_domain(candidate.run, candidate.manifest)
    inputs = {name: torch.from_numpy(array) for name, array in run.test.inputs.items()}
    outputs = FAMILIES[run.recipe.family].predict(run.model, inputs)
    assert float(outputs["next_h"].abs().max()) < domain["h"].high == 1
    assert largest_cell_value(run) == pytest.approx(float(outputs["next_c"].abs().max()))
    assert 8 * largest_cell_value(run) <= domain["c"].high
