"""A continuation counts as decided only where no other token is within the tolerance."""

from dataclasses import replace

import numpy as np
import pytest

from export.candidate import Candidate
from export.gates.requests.stable_draws import is_decided, reference_logits, sample, sampling_of
from export.source import Array
from tests.export.conftest import Candidates

GREEDY = sampling_of({"temperature": 0.0, "seed": 7})


def with_margin(candidate: Candidate, margin: float) -> Candidate:
    """The candidate whose reference prefers token 3 to token 5 by a margin."""
    logits = np.zeros(candidate.source.vocabulary, np.float32)
    logits[3], logits[5] = 1 + margin, 1

    def predict(inputs: dict[str, Array]) -> dict[str, Array]:
        return {"logits": np.broadcast_to(logits, (*inputs["ids"].shape, len(logits)))}

    return replace(candidate, source=replace(candidate.source, predict=predict))


@pytest.mark.parametrize(("margin", "expected"), [(1e-5, False), (0.5, True)])
def test_a_token_beside_another_within_the_tolerance_is_not_decided(
    candidates: Candidates, margin: float, expected: bool
) -> None:
    candidate = with_margin(candidates("tiny-language"), margin)
    assert sample(reference_logits(candidate, [1, 2]), GREEDY, 2) == 3
    assert is_decided(candidate, [1, 2], GREEDY, 3) is expected
