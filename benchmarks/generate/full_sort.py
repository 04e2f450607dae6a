"""The definition of sampling, one row at a time: sort the whole vocabulary, cut, normalise, draw.

It is what the sampler is compared with, in tokens and in CPU time.
"""

import numpy as np
import numpy.typing as npt

from service.engine.generation.sampler import Sampling


def sample(logits_V: npt.NDArray[np.float32], sampling: Sampling, position: int) -> int:
    """Sample the token at `position` by temperature, top_k, top_p and min_p."""
    if sampling.temperature == 0 or sampling.top_k == 1:
        return int(logits_V.argmax())
    probabilities_V = probabilities(logits_V, sampling)
    bounds_V = probabilities_V.cumsum()
    uniform = np.random.Generator(np.random.Philox(key=sampling.seed, counter=position)).random()
    token = int(np.searchsorted(bounds_V, uniform * bounds_V[-1], side="right"))
    return min(token, int(probabilities_V.nonzero()[0][-1]))


def probabilities(logits_V: npt.NDArray[np.float32], sampling: Sampling) -> npt.NDArray[np.float64]:
    """Return the softmax at the temperature, cut to top_k, then to top_p, then to min_p, and normalised again."""
    with np.errstate(over="ignore"):
        scaled_V = (logits_V.astype(np.float64) - float(logits_V.max())) / sampling.temperature
    weights_V = np.exp(scaled_V)
    if not 0 < sampling.top_k < weights_V.size and sampling.top_p == 1 and sampling.min_p == 0:
        return weights_V / weights_V.sum()
    ranked_V = np.argsort(-logits_V, kind="stable")
    candidates = ranked_V[: sampling.top_k or None]
    mass = weights_V[candidates].cumsum()
    candidates = candidates[: 1 + int(np.searchsorted(mass, sampling.top_p * mass[-1], side="left"))]
    candidates = candidates[weights_V[candidates] >= sampling.min_p]
    probabilities_V = np.zeros_like(weights_V)
    probabilities_V[candidates] = weights_V[candidates] / weights_V[candidates].sum()
    return probabilities_V
