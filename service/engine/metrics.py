"""Counters of the engine's work, one set for each version of a model.

All values only grow, except `queued_items`. They are written under the executor's lock, those of whole requests on the
event loop, and may be read at any time.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

# unread: refused before the body was read; late: the deadline had passed on arrival.
Refusal = Literal["overloaded", "unread", "queue-full", "late", "stopping"]
NUM_BINS = 28


@dataclass
class Histogram:
    """Durations by powers of two: bin i counts those of at most `BOUNDS_S[i]` seconds, the last bin all others."""

    counts: list[int] = field(default_factory=lambda: [0] * NUM_BINS)
    sum_s: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.counts[min(int(seconds * 1e6).bit_length(), NUM_BINS - 1)] += 1
        self.sum_s += seconds
        self.count += 1


def bin_of(seconds: float) -> int:
    """The bin of `Histogram.counts` that counts this duration."""
    return min(int(seconds * 1e6).bit_length(), NUM_BINS - 1)


@dataclass
class Durations:
    """How often something was done, and how long it took in all."""

    count: int = 0
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.sum_s += seconds


BOUNDS_S = tuple(2**i / 1e6 for i in range(NUM_BINS - 1))


@dataclass
class GenerationCounters:
    """Counters of the decode loop of one model, which alone writes them."""

    prompt_tokens: int = 0
    prefix_queried_tokens: int = 0  # tokens of prompts that were looked up in the prefix cache
    prefix_hit_tokens: int = 0  # of these, the tokens that it held
    generated_tokens: int = 0
    decode_runs: int = 0  # runs of the graph that decode one token of each row
    decode_rows: int = 0  # rows of these runs together
    finished: Counter[str] = field(default_factory=Counter)  # rows, by finish reason or slug of the error
    running: int = 0
    waiting: int = 0
    kv_cache_bytes: int = 0  # reserved for the running rows
    max_kv_cache_bytes: int = 0
    first_token_s: Histogram = field(default_factory=Histogram)  # from the arrival of a row
    inter_token_s: Histogram = field(default_factory=Histogram)


@dataclass(kw_only=True)
class Counters:
    model: str
    version: str
    requests: int = 0  # admitted
    items: int = 0  # rows of admitted requests
    executed_items: int = 0  # rows that the model answered
    failed_items: int = 0  # rows that made the model fail, or whose inputs or outputs are not finite
    cancelled_items: int = 0  # rows whose client disconnected before they were computed
    expired_items: int = 0  # rows whose deadline passed before they were computed
    late_items: int = 0  # rows whose deadline passed while they were computed
    refused: Counter[Refusal] = field(default_factory=Counter)  # requests
    batches: int = 0
    inline_batches: int = 0  # batches that ran on the event loop
    bisected_batches: int = 0  # batches that were bisected to find the rows that fail
    steps: int = 0  # steps of all rows (and their past), or rows where all have one size
    padded_steps: int = 0  # steps that padding added
    queued_items: int = 0  # rows that wait now
    succeeded: Durations = field(default_factory=Durations)  # requests that were answered, from the call of the engine
    failed: Durations = field(default_factory=Durations)  # all others, whether admitted or not
    last_request_at: float = 0.0  # on the clock of `time.monotonic`; 0: there was none
    queue_s: Histogram = field(default_factory=Histogram)  # by batch: from the first arrival to the start
    compute_s: Histogram = field(default_factory=Histogram)  # by batch
    generation: GenerationCounters = field(default_factory=GenerationCounters)
