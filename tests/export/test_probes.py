"""Probes are put unchanged where they are said to be, among strangers of other lengths."""

import numpy as np
import pytest

from export.probes import garbage, probes
from service.engine.session import Session
from tests.export.conftest import Candidates


def session_of(candidate: object) -> Session:
    return Session(candidate.model, manifest=candidate.manifest, device="cpu")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-language"])
def test_a_crowd_holds_every_guest_at_its_place(name: str, candidates: Candidates) -> None:
    candidate = candidates(name)
    for group in probes(candidate, session_of(candidate), np.random.default_rng(0)):
        crowd = group.crowd({1: 0, 4: 2}, 6, 2.0, np.random.default_rng(1))
        assert {len(array) for array in crowd.values()} == {6}
        for place, number in {1: 0, 4: 2}.items():
            for key, array in group.items[number].items():
                placed = crowd[key][place]
                if key.startswith("past_") and array.ndim > 1:
                    past = int(group.items[number]["past_lengths"][0])
                    np.testing.assert_array_equal(placed[:, :past], array[0, :, :past])
                elif array.ndim > 1:
                    np.testing.assert_array_equal(placed[: array.shape[1]], array[0])
                else:
                    assert placed == array[0]


def test_padding_is_relative_to_the_longest_guest(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    (group,) = probes(candidate, session_of(candidate), np.random.default_rng(0))
    longest = candidate.manifest.limits.max_steps
    assert longest is not None
    widths = {
        padding: group.crowd({0: 0}, 3, padding, np.random.default_rng(1))["series"].shape[1] for padding in (1.0, 2.0)
    }
    own = int(group.items[0]["lengths"][0])
    assert widths == {1.0: own, 2.0: min(longest, 2 * own)}


def test_a_language_model_is_probed_at_every_capacity(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    context = candidate.manifest.limits.max_steps
    groups = list(probes(candidate, session_of(candidate), np.random.default_rng(0)))
    assert [group.capacity for group in groups] == sorted({group.capacity for group in groups})
    assert groups[-1].capacity == context
    for group in groups:
        assert all(int(item["past_lengths"][0]) < group.capacity for item in group.items)


def test_garbage_has_no_past_and_a_noisy_cache(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    inputs = garbage(candidate, 2, 3, 5, np.random.default_rng(0))
    assert inputs["ids"].shape == (2, 3)
    assert not inputs["past_lengths"].any()
    assert inputs["past_key_0"].shape[2] == 5
    assert np.abs(inputs["past_key_0"]).max() > 10
