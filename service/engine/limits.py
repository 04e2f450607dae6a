"""What the engine holds to, whatever is asked of it."""

from dataclasses import dataclass

INLINE_S = 0.002  # the longest that the event loop may be held up by computing


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one batch and one queue hold, and how long a client waits that did not say."""

    max_batch_items: int = 48
    max_batch_steps: int = 8192  # of a batch, padding included
    max_queue_items: int = 2048
    max_waste: float = 0.2  # share of a batch that may be padding
    max_generations: int = 64  # rows of text that are generated at a time
    timeout_s: float = 30.0
