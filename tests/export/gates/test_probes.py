"""Mixed batches hold their probes unchanged, and random batches cover all sizes and widths."""

from dataclasses import replace

import numpy as np
import pytest

from export.candidate import Candidate
from export.gates.probes import noise_inputs, probe_groups, single_row
from service.bundle import Tensors
from service.engine.sessions.session import Session
from tests.export.conftest import Candidates


def session_of(candidate: object) -> Session:
    return Session(candidate.model, manifest=candidate.manifest, device="cpu")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-language"])
def test_a_mixed_batch_holds_every_probe_at_its_position(name: str, candidates: Candidates) -> None:
    candidate = candidates(name)
    for group in probe_groups(candidate, session_of(candidate), np.random.default_rng(0)):
        mixed = group.mixed_batch({1: 0, 4: 2}, 6, 2.0, np.random.default_rng(1))
        assert {len(array) for array in mixed.values()} == {6}
        for position, number in {1: 0, 4: 2}.items():
            for key, array in group.probes[number].items():
                placed = mixed[key][position]
                if key.startswith("past_") and array.ndim > 1:
                    past = int(group.probes[number]["past_lengths"][0])
                    np.testing.assert_array_equal(placed[:, :past], array[0, :, :past])
                elif array.ndim > 1:
                    np.testing.assert_array_equal(placed[: array.shape[1]], array[0])
                else:
                    assert placed == array[0]


def test_padding_is_relative_to_the_longest_probe(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    (group,) = probe_groups(candidate, session_of(candidate), np.random.default_rng(0))
    longest = candidate.manifest.limits.max_steps
    assert longest is not None
    widths = {
        padding: group.mixed_batch({0: 0}, 3, padding, np.random.default_rng(1))["series"].shape[1]
        for padding in (1.0, 2.0)
    }
    length = int(group.probes[0]["lengths"][0])
    assert widths == {1.0: length, 2.0: min(longest, 2 * length)}


def test_a_language_model_is_probed_at_every_capacity(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    context = candidate.manifest.limits.max_steps
    groups = list(probe_groups(candidate, session_of(candidate), np.random.default_rng(0)))
    assert [group.capacity for group in groups] == sorted({group.capacity for group in groups})
    assert groups[-1].capacity == context
    for group in groups:
        assert all(int(probe["past_lengths"][0]) < group.capacity for probe in group.probes)


def test_noise_inputs_have_no_past_and_a_noisy_cache(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    inputs = noise_inputs(candidate, 2, 3, 5, np.random.default_rng(0))
    assert inputs["ids"].shape == (2, 3)
    assert not inputs["past_lengths"].any()
    assert inputs["past_key_0"].shape[2] == 5
    assert np.abs(inputs["past_key_0"]).max() > 10


def random_batches_of(candidate: Candidate) -> list[Tensors]:
    groups = probe_groups(candidate, session_of(candidate), np.random.default_rng(0))
    return [batch for group in groups for batch in group.random_batches()]


@pytest.mark.parametrize("max_steps", [11, 300])
def test_random_batches_have_every_length_up_to_64_and_some_beyond(max_steps: int, candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    limits = candidate.manifest.limits.model_copy(update={"max_steps": max_steps})
    candidate = replace(candidate, manifest=candidate.manifest.model_copy(update={"limits": limits}))
    batches = random_batches_of(candidate)
    widths = {batch["series"].shape[1] for batch in batches}
    assert set(range(1, min(64, max_steps) + 1)) <= widths
    assert 0.9 * max_steps < max(widths) <= max_steps
    for batch in batches:
        assert batch["lengths"].max() == batch["series"].shape[1]
    assert len({int(batch["lengths"].argmax()) for batch in batches}) > 8
    assert {int(length) for batch in batches for length in batch["lengths"]} >= set(range(1, min(64, max_steps) + 1))
    for one, other in zip(batches, random_batches_of(candidate), strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


def test_random_batches_have_every_size(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    assert {len(batch["images"]) for batch in random_batches_of(candidate)} == set(
        range(1, candidate.manifest.limits.max_items + 1)
    )


def test_steps_of_a_random_batch_have_the_caches_of_real_prompts(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    (group,) = probe_groups(candidate, session_of(candidate), np.random.default_rng(0))
    pasts = set()
    for batch in group.random_batches():
        for cache, past in zip(batch["past_key_0"], batch["past_lengths"], strict=True):
            pasts.add(int(past))
            assert any(np.array_equal(cache[:, :past], probe["past_key_0"][0, :, :past]) for probe in group.probes)
    assert pasts == set(range(1, max(int(probe["past_lengths"][0]) for probe in group.probes) + 1))


def test_a_single_row_has_no_padding(candidates: Candidates) -> None:
    batch = random_batches_of(candidates("tiny-tagger"))[9]
    for row, length in enumerate(batch["lengths"]):
        single = single_row(batch, row, {"series"})
        np.testing.assert_array_equal(single["series"], batch["series"][row : row + 1, :length])
        np.testing.assert_array_equal(single["h"], batch["h"][row : row + 1])
        assert single["lengths"] == [length]


def test_random_batches_of_long_items_are_small(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    limits = candidate.manifest.limits.model_copy(update={"max_steps": 900, "max_items": 64})
    candidate = replace(candidate, manifest=candidate.manifest.model_copy(update={"limits": limits}))
    sizes = [batch["series"].shape[:2] for batch in random_batches_of(candidate)]
    assert all(rows <= 4 or rows * steps <= 2048 for rows, steps in sizes)
    assert max(rows for rows, _ in sizes) > 32


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-tagger", "tiny-language"])
def test_shortened_probes_have_up_to_eight_steps(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    for group in probe_groups(candidate, session_of(candidate), np.random.default_rng(0)):
        short = group.shortened()
        if name != "tiny-tagger":
            assert short is group
            continue
        lengths = [int(probe["lengths"][0]) for probe in short.probes]
        full = [int(probe["lengths"][0]) for probe in group.probes]
        assert lengths == [min(steps, length) for steps, length in zip((8, 7, 6, 5), full, strict=True)]
        for one, probe in zip(short.probes, group.probes, strict=True):
            np.testing.assert_array_equal(one["series"], probe["series"][:, : one["lengths"][0]])
            np.testing.assert_array_equal(one["h"], probe["h"])
