"""The prompts of a golden case are read by the graph itself, in caches of the served capacity."""

import numpy as np
import pytest

from service.engine.sessions.session import Session
from service.engine.verification.golden_inputs import complete_inputs, num_new_steps
from service.errors import BundleError
from tests.service.bundles import CONTEXT, LETTERS, example_inputs

FAMILY = "language-model"


def prompted(past: list[int], steps: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, len(LETTERS), (len(past), max(past) + steps))
    return {"ids": ids, "past_lengths": np.array(past)}


@pytest.mark.parametrize(("past", "steps", "capacity"), [([5, 1, 0], 1, 64), ([63, 7], 1, 64), ([62, 3], 4, 128)])
def test_new_steps_follow_the_prompt_of_each_row(
    past: list[int], steps: int, capacity: int, sessions: dict[str, Session]
) -> None:
    session, inputs = sessions[FAMILY], prompted(past, steps)
    completed = complete_inputs(session, inputs)
    assert completed["past_key_0"].shape[2] == capacity
    logits = session.run(completed, ("logits",))["logits"]
    assert logits.shape[1] == steps == num_new_steps(inputs) == num_new_steps(completed)
    for row, length in enumerate(past):
        whole = {"ids": inputs["ids"][row : row + 1, : length + steps], "past_lengths": np.zeros(1, np.int64)}
        empty = {name: cache[:1, :, :0] for name, cache in completed.items() if name not in whole}
        expected = session.run({**whole, **empty}, ("logits",))["logits"][0, length:]
        np.testing.assert_allclose(logits[row], expected, rtol=1e-4, atol=1e-5)


def test_the_longest_prompt_fills_the_context(sessions: dict[str, Session]) -> None:
    completed = complete_inputs(sessions[FAMILY], prompted([CONTEXT - 1], 1))
    assert completed["past_key_0"].shape[2] == CONTEXT
    assert sessions[FAMILY].run(completed)["logits"].shape[1] == 1


def test_unused_slots_hold_garbage(sessions: dict[str, Session]) -> None:
    completed = complete_inputs(sessions[FAMILY], prompted([5, 2], 1))
    assert np.abs(completed["past_key_0"][0, :, :5]).max() < 10
    assert (completed["past_value_1"][1, :, 2:] == 30).all()


def test_other_inputs_stay_as_they_are(sessions: dict[str, Session]) -> None:
    for family in ("image-classifier", FAMILY):
        inputs = example_inputs(family)
        assert complete_inputs(sessions[family], inputs) is inputs


@pytest.mark.parametrize(
    "inputs",
    [
        {"ids": np.zeros((1, 4), np.int64), "past_lengths": np.array([4])},
        {"ids": np.zeros((1, 4), np.int64), "past_lengths": np.array([-1])},
        {"ids": np.zeros((1, CONTEXT + 1), np.int64), "past_lengths": np.array([3])},
        {"ids": np.zeros(4, np.int64), "past_lengths": np.array([1])},
        {"ids": np.zeros((2, 4), np.int64), "past_lengths": np.array([1])},
    ],
)
def test_prompts_without_a_token_after_them_are_refused(
    inputs: dict[str, np.ndarray], sessions: dict[str, Session]
) -> None:
    with pytest.raises(BundleError, match="expected prompts with at least one token after each"):
        complete_inputs(sessions[FAMILY], inputs)
