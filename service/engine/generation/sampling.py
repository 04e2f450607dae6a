"""Sample one token from one row of logits.

Invariant: the token depends only on the row's logits, its sampling parameters and the pair (seed, position). The same
request therefore gets the same tokens alone or in a batch, and a prompt that already contains the first tokens of an
answer is continued with the rest of that answer.

Sampling is done in float64. Equal logits rank by token id, lowest first, here and in `argmax`. The uniform draw u
selects a token by the cumulative probabilities in the order of token ids, not of ranks: a difference in the last bits
of the logits then changes the token only if u lies within that difference of a boundary.
"""

import numpy as np
import numpy.typing as npt
from pydantic import Field

from service.contract.tensors import FrozenModel

MAX_SEED = 2**64 - 1


class Sampling(FrozenModel):
    """Temperature 0 selects the most probable token; top_k 0 and top_p 1 keep all tokens; top_k applies first."""

    temperature: float = Field(ge=0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    seed: int = Field(ge=0, le=MAX_SEED)


def sample(logits_V: npt.NDArray[np.float32], sampling: Sampling, position: int) -> int:
    """Sample the token at `position`, counted from the first token of the prompt."""
    if sampling.temperature == 0 or sampling.top_k == 1:
        return int(logits_V.argmax())
    probabilities_V = sampling_probabilities(logits_V, sampling)
    bounds_V = probabilities_V.cumsum()
    token = int(np.searchsorted(bounds_V, uniform(sampling.seed, position) * bounds_V[-1], side="right"))
    return min(token, int(probabilities_V.nonzero()[0][-1]))


def sampling_probabilities(logits_V: npt.NDArray[np.float32], sampling: Sampling) -> npt.NDArray[np.float64]:
    """Return the softmax at the temperature, cut to top_k, then to top_p, and normalised again."""
    # A tiny temperature overflows all logits but the highest to -inf, which is the right result.
    with np.errstate(over="ignore"):
        scaled_V = (logits_V.astype(np.float64) - float(logits_V.max())) / sampling.temperature
    weights_V = np.exp(scaled_V)
    if not 0 < sampling.top_k < weights_V.size and sampling.top_p == 1:
        return weights_V / weights_V.sum()
    ranked_V = np.argsort(-logits_V, kind="stable")
    candidates = ranked_V[: sampling.top_k or None]
    mass = weights_V[candidates].cumsum()
    candidates = candidates[: 1 + int(np.searchsorted(mass, sampling.top_p * mass[-1], side="left"))]
    probabilities_V = np.zeros_like(weights_V)
    probabilities_V[candidates] = weights_V[candidates] / weights_V[candidates].sum()
    return probabilities_V


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1): Philox 4x64-10 with key `seed` and counter `position` (Salmon et al. 2011)."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())


def log_probability(logits_V: npt.NDArray[np.float32], token: int) -> float:
    """Return the natural logarithm of the token's softmax, before temperature, top_k and top_p."""
    shifted_V = logits_V.astype(np.float64) - float(logits_V.max())
    return float(shifted_V[token] - np.log(np.exp(shifted_V).sum()))
