"""Golden tensors: inputs and the PyTorch model's outputs that the service replays on its own device before it is ready.

They are few and small, of batches and lengths that the graph was not traced with, and hold only what PyTorch defines: a
language model's logits come from full forward passes, while the service answers them from a cache.

Shapes: B batch, S new steps, P past steps.
"""

from collections.abc import Iterator

import numpy as np
import torch

from export.answers import SPARE, by_torch
from export.candidate import Candidate
from export.cases import Array, Source, draw
from service.bundle import GoldenCase
from service.families import LanguageModel
from training.families import FAMILIES

SIZES: tuple[tuple[int, int, Source], ...] = ((1, 1, "test"), (3, 7, "random"), (2, 1 << 30, "test"))  # batch, steps
CACHED = ((1, 0, 7), (3, 0, 3), (3, 9, 1), (2, 6, 3))  # batch, longest past, new steps


def golden_cases(candidate: Candidate) -> tuple[GoldenCase, ...]:
    """The cases of `golden.safetensors`."""
    if isinstance(candidate.manifest.parameters, LanguageModel):
        return tuple(_cached(candidate))
    return tuple(_direct(candidate))


def _direct(candidate: Candidate) -> Iterator[GoldenCase]:
    rng, answer = np.random.default_rng(2), by_torch(candidate.run)
    longest = candidate.manifest.limits.max_steps
    for batch, steps, source in SIZES:
        size = None if longest is None else min(steps, longest)
        case = draw(candidate.run, candidate.manifest, batch=batch, steps=size, source=source, rng=rng)
        yield GoldenCase(inputs=case.inputs, outputs=answer(case))


def _cached(candidate: Candidate) -> Iterator[GoldenCase]:
    """Prefill, decode and a chunk; rows have pasts of their own length, and garbage in the slots beyond."""
    run, manifest = candidate.run, candidate.manifest
    rng, answer = np.random.default_rng(2), by_torch(run)
    longest = manifest.limits.max_steps or 1
    for batch, longest_past, new in (*CACHED, (1, 0, min(longest, 256))):
        steps, past = min(new, longest), min(longest_past, longest - min(new, longest))
        past_B = rng.integers(min(past, 1), past + 1, batch)
        past_B[0] = past
        case = draw(run, manifest, batch=batch, steps=past + steps, source="test", rng=rng)
        outputs = answer(case)
        ids_BT = case.inputs["ids"]
        logits = FAMILIES[run.recipe.family].answer(run.model, {"ids": torch.from_numpy(ids_BT)})["logits"].numpy()
        yield GoldenCase(
            inputs={
                "ids": _window(ids_BT, past_B, steps),
                "past_lengths": past_B,
                **{
                    spec.name: _with_garbage(outputs[spec.name.replace("past_", "new_")], past_B, past, rng)
                    for spec in manifest.inputs[2:]
                },
            },
            outputs={"logits": _window(logits, past_B, steps)},
        )


def _window(array_BT: Array, start_B: Array, steps: int) -> Array:
    return np.stack([row[start : start + steps] for row, start in zip(array_BT, start_B, strict=True)])


def _with_garbage(new_BHTK: Array, past_B: Array, past: int, rng: np.random.Generator) -> Array:
    width = past + SPARE if past else 0
    batch, heads, _, size = new_BHTK.shape
    cache = rng.normal(0, 30, (batch, heads, width, size)).astype(np.float32)
    for row, length in enumerate(past_B):
        cache[row, :, :length] = new_BHTK[row, :, :length]
    return cache
