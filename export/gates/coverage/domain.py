"""The domain of a model: the range of each numeric input over which export shows parity, and the service answers.

It is wide on purpose: what a client may send today is well inside. It is bounded because float32 itself is not defined
at its ends: PyTorch gives NaN where ONNX Runtime gives a number. The ends are powers of two, or the exact bound of a
state, so they are exact in float32.
"""

from math import ceil, log2

import numpy as np
import torch

from service.manifest import Manifest, ValueRange
from training.batches import subsample
from training.checkpoint import Run
from training.families import FAMILIES, with_initial_state

# A series may have values of up to this many times the largest of the test split.
SERIES_FACTOR = 30
# A cell state may have up to this many times the largest value after any test item.
CELL_FACTOR = 8
# The sampler draws latents from the standard normal distribution.
MIN_LATENT = 8
MAX_ITEMS = 1000


def choose_domain(run: Run, manifest: Manifest) -> dict[str, ValueRange]:
    """The range of each float input, symmetric around 0. The caches of a language model have none."""
    domain: dict[str, ValueRange] = {}
    for spec in manifest.inputs:
        match spec.name:
            case "series":
                high = _power_of_two(SERIES_FACTOR * largest_test_value(run, "series"))
            case "latents":
                high = _power_of_two(max(MIN_LATENT, largest_test_value(run, "latents")))
            case "h":
                # The output gate is at most 1, and so is the hyperbolic tangent.
                high = 1.0
            case "c":
                high = _power_of_two(CELL_FACTOR * largest_cell_value(run))
            case _:
                continue
        domain[spec.name] = ValueRange(low=-high, high=high)
    return domain


def largest_test_value(run: Run, name: str) -> float:
    """The largest magnitude of this input in the test split."""
    return float(np.abs(run.test.inputs[name]).max())


def largest_cell_value(run: Run) -> float:
    """The largest magnitude of a cell state after an item of the test split."""
    split = subsample(run.test, MAX_ITEMS)
    inputs = with_initial_state(run.model, {name: torch.from_numpy(array) for name, array in split.inputs.items()})
    return float(FAMILIES[run.recipe.family].predict(run.model, inputs)["next_c"].abs().max())


def _power_of_two(value: float) -> float:
    """The smallest power of two that is not below the value, at least 1."""
    return 2.0 ** max(0, ceil(log2(max(value, 1.0))))
