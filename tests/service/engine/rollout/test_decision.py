"""The test decides, rarely wrongly, and its bounds are those of the paper."""

import math

import numpy as np
import pytest

from service.engine.rollout.decision import ERROR_RATE, TOLERATED, decide

SHARE = 0.002


def first_decision(differs: np.ndarray) -> tuple[str, int]:
    """The decision on a sequence of comparisons, and how many it took."""
    different = 0
    for number, value in enumerate(differs.tolist(), start=1):
        different += value
        if (decision := decide(number, different, SHARE)) != "undecided":
            return decision, number
    return "undecided", len(differs)


def test_the_likelihood_ratio_is_that_of_two_binomials() -> None:
    """At the first decision the ratio of the likelihoods of both shares, computed anew, has passed the bound."""
    for compared, different in ((3100, 0), (1, 0), (9, 4), (4000, 9), (2000, 3)):
        likelihoods = [share**different * (1 - share) ** (compared - different) for share in (SHARE, TOLERATED * SHARE)]
        ratio = math.log(likelihoods[0] / likelihoods[1])
        bound = math.log((1 - ERROR_RATE) / ERROR_RATE)
        expected = "stopped" if ratio >= bound else "passed" if ratio <= -bound else "undecided"
        assert decide(compared, different, SHARE) == expected, (compared, different)


def test_equal_answers_pass_and_no_answers_decide_nothing() -> None:
    assert decide(0, 0, SHARE) == "undecided"
    decision, number = first_decision(np.zeros(10_000, bool))
    bound = math.log((1 - ERROR_RATE) / ERROR_RATE) / math.log((1 - TOLERATED * SHARE) / (1 - SHARE))
    assert (decision, number) == ("passed", math.ceil(bound))


def test_a_candidate_that_always_differs_is_stopped_at_once() -> None:
    assert first_decision(np.ones(10, bool)) == ("stopped", 4)


@pytest.mark.parametrize(("share", "expected"), [(SHARE, "stopped"), (TOLERATED * SHARE, "passed")])
def test_at_most_a_hundredth_of_the_decisions_is_an_error(share: float, expected: str) -> None:
    """Of 400 seeded runs at each share, 4 errors are expected; 12 or more have a probability of 1 in 1,000."""
    rng = np.random.default_rng(7)
    decisions = [first_decision(rng.random(40_000) < share)[0] for _ in range(400)]
    assert "undecided" not in decisions
    assert sum(decision != expected for decision in decisions) < 12
