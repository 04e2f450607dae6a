"""What the engine did, counted for each version of a model.

Everything only grows but `queued_items`; reading costs the writer nothing. Written under the runner's lock, but for
those who are refused unread, which the one thread counts that refuses them.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Refusal = Literal["overloaded", "unread", "queue-full", "late", "stopping"]
BINS = 28


@dataclass
class Histogram:
    """Durations by powers of two: bin i counts those of at most `BOUNDS_S[i]` seconds, the last one all others."""

    counts: list[int] = field(default_factory=lambda: [0] * BINS)
    sum_s: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.counts[min(int(seconds * 1e6).bit_length(), BINS - 1)] += 1
        self.sum_s += seconds
        self.count += 1


BOUNDS_S = tuple(2**i / 1e6 for i in range(BINS - 1))


@dataclass(kw_only=True)
class Counters:
    model: str
    version: str
    requests: int = 0  # admitted
    items: int = 0  # rows of admitted requests
    executed_items: int = 0  # rows that the model gave an answer for
    failed_items: int = 0  # rows that made the model fail, or were sent with some that held no finite number
    cancelled_items: int = 0  # rows whose client left before they were computed
    expired_items: int = 0  # rows whose deadline passed before they were computed
    late_items: int = 0  # rows whose deadline passed while they were computed
    refused: Counter[Refusal] = field(default_factory=Counter)  # requests
    batches: int = 0
    inline_batches: int = 0  # of them on the event loop itself
    bisected_batches: int = 0  # of them taken apart to find the rows that fail
    steps: int = 0  # what was asked for: steps of all rows (and their past), or rows where all have one size
    padded_steps: int = 0  # what padding added to that
    decoder_steps: int = 0  # tokens that were computed for texts: a step of three rows counts three
    queued_items: int = 0  # now
    queue_s: Histogram = field(default_factory=Histogram)  # batches: from the arrival of the first to the beginning
    compute_s: Histogram = field(default_factory=Histogram)  # batches
