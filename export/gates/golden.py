"""Golden tensors: inputs and PyTorch's outputs, which the service replays on its own device before it is ready.

The cases are few and small, and their batch sizes and lengths differ from those of the traced example. They hold only
outputs that PyTorch defines: a language model's logits come from full forward passes, although the service computes
them with a cache.

Shapes: B batch, S new steps, P past steps.
"""

from collections.abc import Iterator

import numpy as np
import torch

from export.candidate import Candidate
from export.gates.backends import SPARE_SLOTS, torch_backend
from export.gates.cases import Array, Source, draw_case
from service.bundle import GoldenCase
from service.families import LanguageModel
from training.families import FAMILIES

# Batch, steps, source of the items.
SIZES: tuple[tuple[int, int, Source], ...] = ((1, 1, "test"), (3, 7, "random"), (2, 1 << 30, "test"))
# Batch, longest past, new steps.
CACHED_SIZES = ((1, 0, 7), (3, 0, 3), (3, 9, 1), (2, 6, 3))


def golden_cases(candidate: Candidate) -> tuple[GoldenCase, ...]:
    """The cases of `golden.safetensors`."""
    if isinstance(candidate.manifest.parameters, LanguageModel):
        return tuple(_cached_cases(candidate))
    return tuple(_uncached_cases(candidate))


def _uncached_cases(candidate: Candidate) -> Iterator[GoldenCase]:
    rng, reference = np.random.default_rng(2), torch_backend(candidate.run)
    longest = candidate.manifest.limits.max_steps
    for batch, max_steps, source in SIZES:
        steps = None if longest is None else min(max_steps, longest)
        case = draw_case(candidate.run, candidate.manifest, batch=batch, steps=steps, source=source, rng=rng)
        yield GoldenCase(inputs=case.inputs, outputs=reference(case))


def _cached_cases(candidate: Candidate) -> Iterator[GoldenCase]:
    """Prefill, decode and a chunk. Each row has its own past length, and the slots beyond it hold garbage."""
    run, manifest = candidate.run, candidate.manifest
    rng, reference = np.random.default_rng(2), torch_backend(run)
    longest = manifest.limits.max_steps or 1
    for batch, longest_past, new in (*CACHED_SIZES, (1, 0, min(longest, 256))):
        steps, past = min(new, longest), min(longest_past, longest - min(new, longest))
        past_B = rng.integers(min(past, 1), past + 1, batch)
        past_B[0] = past
        case = draw_case(run, manifest, batch=batch, steps=past + steps, source="test", rng=rng)
        outputs = reference(case)
        ids_BT = case.inputs["ids"]
        logits = FAMILIES[run.recipe.family].predict(run.model, {"ids": torch.from_numpy(ids_BT)})["logits"].numpy()
        yield GoldenCase(
            inputs={
                "ids": _window(ids_BT, past_B, steps),
                "past_lengths": past_B,
                **{
                    spec.name: _noisy_cache(outputs[spec.name.replace("past_", "new_")], past_B, past, rng)
                    for spec in manifest.inputs[2:]
                },
            },
            outputs={"logits": _window(logits, past_B, steps)},
        )


def _window(array_BT: Array, start_B: Array, steps: int) -> Array:
    return np.stack([row[start : start + steps] for row, start in zip(array_BT, start_B, strict=True)])


def _noisy_cache(new_BHTK: Array, past_B: Array, past: int, rng: np.random.Generator) -> Array:
    capacity = past + SPARE_SLOTS if past else 0
    batch, heads, _, size = new_BHTK.shape
    cache = rng.normal(0, 30, (batch, heads, capacity, size)).astype(np.float32)
    for row, length in enumerate(past_B):
        cache[row, :, :length] = new_BHTK[row, :, :length]
    return cache
