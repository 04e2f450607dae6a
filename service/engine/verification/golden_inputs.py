"""The inputs of a golden case as the graph receives them.

The golden cases of a language model may hold tokens without caches, which would be megabytes: `ids` [B, T] and
`past_lengths` [B]. The first `past_lengths[b]` tokens of row b are its prompt, which the graph reads as in service, in
chunks. The case computes the T - max(past_lengths) tokens that follow, in caches of the capacity at which the decode
loop would compute the last of them. Unused slots of the caches hold garbage.

Shapes: B batch, T tokens, S new steps, H heads, C capacity of the cache, K head size.
"""

import numpy as np

from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import cache_capacity, read_prompt
from service.engine.sessions.session import Session
from service.errors import BundleError

PROMPTED = frozenset({"ids", "past_lengths"})
GARBAGE = 30.0  # far larger than keys and values of a trained model


def num_new_steps(inputs: Tensors) -> int:
    """Return the number of steps that a case of a language model computes."""
    num_tokens: int = inputs["ids"].shape[1]
    return num_tokens - int(inputs["past_lengths"].max()) if set(inputs) == PROMPTED else num_tokens


def complete_inputs(session: Session, inputs: Tensors) -> Tensors:
    """Return all inputs of the graph; reads the prompts of a case without caches. Raises BundleError."""
    head = session.manifest.head
    if set(inputs) != PROMPTED or not isinstance(head, LanguageModelHead):
        return inputs
    ids_BT, past_B = inputs["ids"], inputs["past_lengths"]
    num_steps = num_new_steps(inputs) if ids_BT.ndim == 2 and past_B.shape == ids_BT.shape[:1] else 0
    context = session.manifest.limits.max_steps or 0
    if num_steps < 1 or ids_BT.shape[1] > context or past_B.min() < 0:
        raise BundleError(
            f"{session.manifest.name}/{session.manifest.version}: a golden case has ids {list(ids_BT.shape)} and "
            f"past_lengths {past_B.tolist()[:8]}, expected prompts with at least one token after each"
        )
    shape = (len(ids_BT), head.heads, cache_capacity(ids_BT.shape[1], context), head.head_size)
    caches = {
        spec.name: np.full(shape, GARBAGE, np.float32) for spec in session.manifest.inputs if spec.name not in PROMPTED
    }
    for row, past in enumerate(past_B.tolist()):
        for part, cache_1HCK in read_prompt(session, ids_BT[row, :past]).parts.items():
            caches[f"past_{part}"][row, :, :past] = cache_1HCK[0, :, :past]
    ids_BS = np.stack([ids[past : past + num_steps] for ids, past in zip(ids_BT, past_B.tolist(), strict=True)])
    return {"ids": ids_BS, "past_lengths": past_B, **caches}
