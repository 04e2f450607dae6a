"""Whether a continuation is decided: the sampler draws the same tokens from all logits within the tolerance.

The logits of a variant in integers differ from those of its reference by a little, and where two tokens are drawn with
nearly the same right, each is correct. A stored request must have one answer.

Shapes: V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.candidate import Candidate
from export.gates.cases import Array
from service.engine.generation.sampler import RowSampler, Sampling, sample_rows

NUM_DRAWS = 8


def sampling_of(body: dict[str, Any]) -> Sampling:
    """The sampling parameters of a request with a seed."""
    return Sampling(
        temperature=body.get("temperature", 1.0),
        top_k=body.get("top_k", 0),
        top_p=body.get("top_p", 1.0),
        seed=body["seed"],
    )


def sample(logits_V: Array, sampling: Sampling, position: int) -> int:
    """The token that the service draws at a position."""
    return sample_rows(logits_V[None], [RowSampler(sampling, prompt=())], [position])[0].id


def reference_logits(candidate: Candidate, ids: Sequence[int]) -> Array:
    """The reference's logits of the token behind these, by a full forward pass."""
    logits: Array = candidate.source.predict({"ids": np.array([ids], np.int64)})["logits"][0, -1]
    return logits


def is_decided(candidate: Candidate, prompt: Sequence[int], sampling: Sampling, num_tokens: int) -> bool:
    """Whether the tokens behind a prompt stay the same when the logits move within their tolerance."""
    tolerance, ids = candidate.manifest.tolerance["logits"], list(prompt)
    rng = np.random.default_rng(0)
    for _ in range(num_tokens):
        logits_V = reference_logits(candidate, ids)
        allowed_V = tolerance.atol + tolerance.rtol * np.abs(logits_V)
        token = sample(logits_V, sampling, len(ids))
        for _ in range(NUM_DRAWS):
            moved_V = logits_V + rng.uniform(-1, 1, logits_V.shape).astype(np.float32) * allowed_V
            if sample(moved_V.astype(np.float32), sampling, len(ids)) != token:
                return False
        ids.append(token)
    return True
