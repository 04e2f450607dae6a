"""The golden prompts of a language model, at every capacity of the cache that the service uses.

A golden case of a language model holds tokens only. The first `past_lengths` tokens of a row are its prompt, which the
graph itself reads before the case is computed, as in service; the caches would be megabytes.

Shapes: B batch, T tokens of a row: its prompt and the new steps.
"""

from collections.abc import Iterator

import numpy as np

from export.candidate import Candidate
from export.gates.cases import Array, Items, draw_case
from service.bundle import Tensors
from service.contract.readers import TextReader
from service.engine.generation.kv_cache import MIN_CACHE_CAPACITY
from service.engine.verification.shapes import doubling

# The logits of the new steps of one row.
MAX_LOGITS = 30_000
MAX_VOCABULARY_LOGITS = 120_000
NUM_PROMPTS, PROMPT_TOKENS = 24, 24


def mandatory_prompts(candidate: Candidate, rng: np.random.Generator) -> Iterator[Tensors]:
    """Decoding steps and chunks at every capacity, the longest prompt, and every token of the vocabulary."""
    longest = candidate.manifest.limits.max_steps or 1
    for capacity in doubling(MIN_CACHE_CAPACITY, longest):
        yield _prompted(candidate, [capacity - 1, 1], 1, rng)
    chunk = min(3, longest - 1)
    yield _prompted(candidate, [min(9, longest - chunk), 1], chunk, rng)
    steps = min(longest, _max_steps(candidate))
    yield _prompted(candidate, [longest - steps], steps, rng)
    yield from _vocabulary(candidate, longest)


def optional_prompts(candidate: Candidate, rng: np.random.Generator) -> Iterator[Tensors]:
    """Short prompts, read at once: windows of the test split and random tokens."""
    steps = min(PROMPT_TOKENS, candidate.manifest.limits.max_steps or 1, _max_steps(candidate))
    for source in ("test", "random"):
        yield _prompted(candidate, [0] * (NUM_PROMPTS // 2), steps, rng, source)


def _max_steps(candidate: Candidate) -> int:
    return max(1, MAX_LOGITS // _vocabulary_size(candidate))


def _vocabulary_size(candidate: Candidate) -> int:
    reader = candidate.manifest.reader
    assert isinstance(reader, TextReader)
    return reader.vocabulary


def _vocabulary(candidate: Candidate, longest: int) -> Iterator[Tensors]:
    """Every token as a new step, or in the prompt if the logits of all steps would be large.

    Of a vocabulary so large that the logits of these rows exceed MAX_VOCABULARY_LOGITS, the first tokens are read.
    """
    size = _vocabulary_size(candidate)
    ids = np.arange(min(size, longest * max(1, MAX_VOCABULARY_LOGITS // size)))
    for start in range(0, len(ids), longest):
        part_T = ids[start : start + longest]
        past = max(0, len(part_T) - _max_steps(candidate))
        yield {"ids": part_T[None], "past_lengths": np.array([past])}


def _prompted(
    candidate: Candidate, past: list[int], steps: int, rng: np.random.Generator, items: Items = "test"
) -> Tensors:
    past_B: Array = np.array(past, np.int64)[: candidate.manifest.limits.max_items]
    width = int(past_B.max()) + steps
    case = draw_case(candidate.source, candidate.manifest, batch=len(past_B), steps=width, items=items, rng=rng)
    return {"ids": case.inputs["ids"], "past_lengths": past_B}
