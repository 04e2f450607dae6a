"""The domain of a model: the range of each numeric input over which export shows parity, and the service answers.

It is wide on purpose: what a client may send today is well inside. It is bounded because float32 itself is not defined
at its ends: PyTorch gives NaN where ONNX Runtime gives a number. The ends are powers of two, so they are exact in
float32.
"""

from math import ceil, log2

import numpy as np

from export.source import Source
from service.manifest import Manifest, ValueRange

# A series may have values of up to this many times the largest of the test split.
SERIES_FACTOR = 30
# A hidden state is at most 1, but onnxruntime's hyperbolic tangent exceeds that in its last bit.
HIDDEN = 2.0
# A cell state grows by at most 1 in a step. It may be that of this many items of the greatest length; where a gate is
# nearly closed, float32 sigmoids differ by an amount that a larger cell state would make an error.
CELL_ITEMS = 2
# The largest number that numpy's standard normal distribution gives in float32 is 8.21.
MIN_LATENT = 16


def choose_domain(source: Source, manifest: Manifest) -> dict[str, ValueRange]:
    """The range of each float input, symmetric around 0. The caches of a language model have none."""
    domain: dict[str, ValueRange] = {}
    for spec in manifest.inputs:
        match spec.name:
            case "series":
                high = _power_of_two(SERIES_FACTOR * largest_test_value(source, "series"))
            case "latents":
                high = _power_of_two(max(MIN_LATENT, largest_test_value(source, "latents")))
            case "h":
                high = HIDDEN
            case "c":
                high = _power_of_two(CELL_ITEMS * (manifest.limits.max_steps or 1))
            case _:
                continue
        domain[spec.name] = ValueRange(low=-high, high=high)
    return domain


def largest_test_value(source: Source, name: str) -> float:
    """The largest magnitude of this input in the test split."""
    return float(np.abs(source.examples.inputs[name]).max())


def _power_of_two(value: float) -> float:
    """The smallest power of two that is not below the value, at least 1."""
    return 2.0 ** max(0, ceil(log2(max(value, 1.0))))
