"""Probes are put unchanged where they are said to be, among strangers of other lengths."""

from dataclasses import replace

import numpy as np
import pytest

from export.candidate import Candidate
from export.probes import garbage, probes, row_alone
from service.bundle import Tensors
from service.engine.sessions.session import Session
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


def crowds_of(candidate: Candidate) -> list[Tensors]:
    groups = probes(candidate, session_of(candidate), np.random.default_rng(0))
    return [crowd for group in groups for crowd in group.crowds()]


@pytest.mark.parametrize("max_steps", [11, 300])
def test_crowds_have_every_length_up_to_64_and_any_beyond(max_steps: int, candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    limits = candidate.manifest.limits.model_copy(update={"max_steps": max_steps})
    candidate = replace(candidate, manifest=candidate.manifest.model_copy(update={"limits": limits}))
    crowds = crowds_of(candidate)
    widths = {crowd["series"].shape[1] for crowd in crowds}
    assert set(range(1, min(64, max_steps) + 1)) <= widths
    assert 0.9 * max_steps < max(widths) <= max_steps
    for crowd in crowds:
        assert crowd["lengths"].max() == crowd["series"].shape[1]
    assert len({int(crowd["lengths"].argmax()) for crowd in crowds}) > 8
    assert {int(length) for crowd in crowds for length in crowd["lengths"]} >= set(range(1, min(64, max_steps) + 1))
    for one, other in zip(crowds, crowds_of(candidate), strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


def test_crowds_have_every_size(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    assert {len(crowd["images"]) for crowd in crowds_of(candidate)} == set(
        range(1, candidate.manifest.limits.max_items + 1)
    )


def test_steps_of_a_crowd_have_the_caches_of_real_prompts(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    (group,) = probes(candidate, session_of(candidate), np.random.default_rng(0))
    pasts = set()
    for crowd in group.crowds():
        for cache, past in zip(crowd["past_key_0"], crowd["past_lengths"], strict=True):
            pasts.add(int(past))
            assert any(np.array_equal(cache[:, :past], item["past_key_0"][0, :, :past]) for item in group.items)
    assert pasts == set(range(1, max(int(item["past_lengths"][0]) for item in group.items) + 1))


def test_a_row_of_a_crowd_is_alone_without_padding(candidates: Candidates) -> None:
    crowd = crowds_of(candidates("tiny-tagger"))[9]
    for row, length in enumerate(crowd["lengths"]):
        alone = row_alone(crowd, row)
        np.testing.assert_array_equal(alone["series"], crowd["series"][row : row + 1, :length])
        np.testing.assert_array_equal(alone["h"], crowd["h"][row : row + 1])
        assert alone["lengths"] == [length]
