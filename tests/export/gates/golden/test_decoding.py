"""Prompts cover every capacity, the whole vocabulary and the longest context."""

from dataclasses import replace

import numpy as np
import pytest

from export.gates.golden import decoding
from export.gates.golden.decoding import mandatory_prompts, optional_prompts
from service.engine.generation.kv_cache import cache_capacity
from service.engine.verification.golden_inputs import num_new_steps
from service.engine.verification.shapes import doubling
from tests.export.conftest import Candidates
from tests.export.tiny import CHARACTERS

CONTEXT = 24


def test_prompts_have_decoding_steps_a_chunk_and_the_longest_prefill(candidates: Candidates) -> None:
    prompts = list(mandatory_prompts(candidates("tiny-language"), np.random.default_rng(0)))
    sizes = [(num_new_steps(prompt), prompt["past_lengths"].tolist()) for prompt in prompts]
    assert (1, [CONTEXT - 1, 1]) in sizes
    assert (CONTEXT, [0]) in sizes
    assert (3, [9, 1]) in sizes
    # The last five of 29 tokens are all new.
    assert (5, [0]) in sizes


@pytest.mark.parametrize("context", [24, 160, 1024])
def test_every_served_capacity_has_a_decoding_step(context: int, candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    limits = candidate.manifest.limits.model_copy(update={"max_steps": context})
    longer = replace(candidate, manifest=candidate.manifest.model_copy(update={"limits": limits}))
    prompts = mandatory_prompts(longer, np.random.default_rng(0))
    steps = [prompt for prompt in prompts if num_new_steps(prompt) == 1]
    capacities = {cache_capacity(prompt["ids"].shape[1], context) for prompt in steps}
    assert capacities >= set(doubling(64, context))


def test_every_token_is_read(candidates: Candidates) -> None:
    prompts = mandatory_prompts(candidates("tiny-language"), np.random.default_rng(0))
    assert {int(i) for prompt in prompts for i in prompt["ids"].ravel()} == set(range(len(CHARACTERS)))


def test_large_vocabularies_have_few_new_steps(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_LOGITS", 2 * len(CHARACTERS))
    candidate = candidates("tiny-language")
    for prompts in (mandatory_prompts, optional_prompts):
        for prompt in prompts(candidate, np.random.default_rng(0)):
            assert num_new_steps(prompt) <= 3
