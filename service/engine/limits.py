"""Bounds that hold for every batch and every queue."""

from dataclasses import dataclass

MAX_BATCH_ITEMS = 1024  # the largest setting; export shows parity up to this size
INLINE_BUDGET_S = 0.002  # the longest computation that may hold up an event loop


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes of one batch and one queue, and the default deadline of a request."""

    max_batch_items: int = 48
    max_batch_steps: int = 8192  # padding included
    max_queue_items: int = 2048
    max_waste: float = 0.2  # share of a batch that may be padding
    max_generations: int = 64  # texts of one model that are generated at the same time
    kv_cache_bytes: int = 1 << 30  # keys and values of these texts
    prefix_cache_bytes: int = 256 << 20  # keys and values of earlier prompts
    timeout_s: float = 30.0
