"""The domain holds what clients send today with a wide margin, and its ends are exact in float32."""

import numpy as np
import pytest

from export.gates.coverage.domain import choose_domain, largest_test_value
from tests.export.conftest import Candidates


@pytest.mark.parametrize("name", ["tiny-rnn", "tiny-tagger", "tiny-gan"])
def test_every_end_is_symmetric_and_exact(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    domain = choose_domain(candidate.source, candidate.manifest)
    assert set(domain) == {spec.name for spec in candidate.manifest.inputs if spec.dtype == "float32"}
    for bound in domain.values():
        assert bound.low == -bound.high
        assert np.float32(bound.high) == bound.high == 2.0 ** round(np.log2(bound.high))


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-text", "tiny-language"])
def test_only_float_inputs_have_a_domain_and_caches_have_none(candidates: Candidates, name: str) -> None:
    assert choose_domain(candidates(name).source, candidates(name).manifest) == {}


def test_a_series_may_have_thirty_times_the_values_of_the_test_split(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    largest = float(np.abs(candidate.source.examples.inputs["series"]).max())
    assert largest_test_value(candidate.source, "series") == largest
    assert 30 * largest <= choose_domain(candidate.source, candidate.manifest)["series"].high < 60 * largest


def test_latents_reach_sixteen_standard_deviations(candidates: Candidates) -> None:
    assert choose_domain(candidates("tiny-gan").source, candidates("tiny-gan").manifest)["latents"].high == 16


def test_a_state_holds_what_the_model_returns_after_two_items(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    domain = choose_domain(candidate.source, candidate.manifest)
    steps, channels = candidate.manifest.limits.max_steps or 1, candidate.source.examples.inputs["series"].shape[2]
    units = candidate.manifest.inputs[2].shape[1:]
    state = {part: np.zeros((1, *map(int, units)), np.float32) for part in ("h", "c")}
    for _ in range(2):
        series = np.full((1, steps, channels), domain["series"].high, np.float32)
        outputs = candidate.session.run({"series": series, "lengths": np.array([steps]), **state})
        state = {part: outputs[f"next_{part}"] for part in ("h", "c")}
        for part, values in state.items():
            assert np.abs(values).max() <= domain[part].high
