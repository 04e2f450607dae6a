"""The queue of one model: rows of requests wait here and leave it as batches.

The slice with the earliest deadline leads a batch. The others are the most urgent ones of its length and, as long as
padding stays below `max_waste`, of the lengths next to it. A row leaves the queue once: computed, expired or cancelled.
Not safe to share between threads: the executor holds its lock around every call.
"""

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any
from weakref import ref

import numpy as np

from service.engine.batching.backlog import Backlog
from service.engine.batching.batch import SliceResult
from service.engine.batching.collate import Collator, Tensors
from service.engine.batching.cost_model import MEDIAN, SLOW, CostEstimate, CostModel
from service.engine.batching.request import PENDING, Request, RequestSlice, RequestStatus
from service.engine.context import Timing
from service.engine.limits import INLINE_BUDGET_S, Limits
from service.engine.metrics import Counters
from service.engine.sessions.session import Session

MEASURE_EVERY = 4  # one in this many requests that run alone on the event loop is measured
URGENCY = attrgetter("deadline")


@dataclass(kw_only=True, slots=True, eq=False)
class Batch:
    """Slices that run together, and requests whose deadline passed before their slices could join."""

    queue: "BatchQueue"
    slices: list[RequestSlice] = field(default_factory=list)
    num_rows: int = 0
    longest: int = 0
    steps: int = 0  # of all rows, without padding
    expired: list[Request] = field(default_factory=list)

    def add(self, part: RequestSlice) -> None:
        self.slices.append(part)
        self.num_rows += part.num_rows
        self.steps += part.steps
        self.longest = max(self.longest, part.longest)


class BatchQueue:
    def __init__(self, collator: Collator, limits: Limits, counters: Counters, backlog: Backlog) -> None:
        self.collator = collator
        self.limits = limits
        self.counters = counters
        self.session: ref[Session] | None = None  # weak: a queue keeps no model alive
        self._backlog = backlog
        self.cost_model = CostModel()
        self.measured_at = 0.0
        self.num_rows = 0
        self._buckets: dict[Any, deque[RequestSlice]] = {}  # by the key of their slices, the most urgent first
        self._row_costs: dict[int, tuple[float, float]] = {}

    def slices(self, request: Request) -> Sequence[RequestSlice]:
        """The rows of a request, each slice of rows that may always run together; made once."""
        if not request.slices:
            request.slices = self._slice(request)
        return request.slices

    def _slice(self, request: Request) -> Sequence[RequestSlice]:
        collator = self.collator
        if not collator.is_ragged:
            num_rows, size = request.num_rows, request.num_steps
            key = collator.batch_key(request.inputs)
            return (RequestSlice(request, key, slice(0, num_rows), num_rows, size, num_rows * size),)
        lengths_B = request.inputs["lengths"]
        lengths = lengths_B.tolist()
        num_rows, longest = len(lengths), max(lengths)
        bucket = collator.length_bucket(longest)
        if bucket == collator.length_bucket(min(lengths)):
            return (RequestSlice(request, bucket, slice(0, num_rows), num_rows, longest, sum(lengths)),)
        rows: dict[int, list[int]] = {}
        for row, length in enumerate(lengths):
            rows.setdefault(collator.length_bucket(length), []).append(row)
        return [_slice_of(request, bucket, rows[bucket], lengths) for bucket in sorted(rows)]

    def inline_batches(self, requests: Sequence[Request], *, beside_threads: bool) -> list[Batch]:
        """These requests, in their order, as batches that are quick enough for the event loop, without queueing.

        Empty unless all requests have one key, each fits a quick batch, and none fills half of a batch by itself while
        a thread could run it `beside_threads` that compute other batches.
        """
        slices: list[RequestSlice] = []
        longest = 0
        for request in requests:
            if request.queue is not self or request.future.done():
                return []
            parts = self.slices(request)
            if len(parts) > 1 or (slices and parts[0].key != slices[0].key):
                return []
            slices.append(parts[0])
            longest = max(longest, parts[0].longest)
        max_rows = capacity = self.capacity(longest)
        while max_rows > 1 and not self.is_quick(max_rows, longest):
            max_rows //= 2
        batches: list[Batch] = []
        for part in slices:
            if not batches or batches[-1].num_rows + part.num_rows > max_rows:
                fills_half = beside_threads and 2 * part.num_rows >= capacity
                if part.num_rows > max_rows or fills_half or not self.is_quick(part.num_rows, longest):
                    return []
                batches.append(Batch(queue=self))
            batches[-1].add(part)
        return batches

    def count_admitted(self, request: Request) -> None:
        self.counters.requests += 1
        self.counters.items += request.num_rows

    def push(self, part: RequestSlice) -> None:
        bucket = self._buckets.get(part.key)
        if bucket is None:
            bucket = self._buckets[part.key] = deque()
        if bucket and part.deadline < bucket[-1].deadline:
            insort(bucket, part, key=URGENCY)
        else:
            bucket.append(part)
        part.is_queued = True
        if not part.work_s:
            part.work_s = self.row_cost(part.longest)[0] * part.num_rows
        self._backlog.add(part.deadline, part.work_s)
        self.num_rows += part.num_rows
        self.counters.queued_items += part.num_rows

    def discard(self, request: Request, status: RequestStatus) -> int:
        """Compute nothing more of a request; return how many of its rows were still queued."""
        request.status = status
        num_rows = 0
        for part in request.slices:
            if part.is_queued:
                part.is_queued = False
                self._remove(part)
                num_rows += part.num_rows
        return num_rows

    def most_urgent(self) -> RequestSlice | None:
        """The slice with the earliest deadline."""
        best = None
        for key in list(self._buckets):
            bucket = self._buckets[key]
            while bucket and bucket[0].request.status is not PENDING:
                bucket.popleft()
            if not bucket:
                del self._buckets[key]
            elif best is None or bucket[0].deadline < best.deadline:
                best = bucket[0]
        return best

    def is_quick(self, num_rows: int, num_steps: int) -> bool:
        """True if a batch of this size usually takes at most INLINE_BUDGET_S."""
        seconds = self.cost_model.predict(num_rows, num_steps, MEDIAN)
        return seconds is not None and seconds <= INLINE_BUDGET_S

    def fits_budget(self, first: RequestSlice, budget_s: float) -> bool:
        """True if the batch that `next_batch` would form around this slice usually takes at most `budget_s`."""
        longest = first.longest
        seconds = self.cost_model.predict(min(self.num_rows, self.capacity(longest)), longest, MEDIAN)
        return seconds is not None and seconds <= budget_s

    def predict_batch_s(self, batch: Batch) -> float:
        """Seconds that a batch usually takes; 0 if unknown."""
        return self.cost_model.predict(batch.num_rows, batch.longest, MEDIAN) or 0.0

    def record_inline(self, inputs: Tensors, num_rows: int, num_steps: int, seconds: float) -> None:
        """Count and measure a request that ran alone, without a batch."""
        counters = self.counters
        steps = num_rows * max(num_steps, 1)
        if self.collator.is_ragged:
            lengths = inputs["lengths"]
            steps = lengths.item() if num_rows == 1 else int(lengths.sum())
            if not self.collator.mixes_buckets:
                # Rows are computed at the bucket of the longest, however they were padded.
                num_steps = steps if num_rows == 1 else int(lengths.max())
            counters.padded_steps += num_rows * self.collator.computed_steps(num_steps) - steps
        counters.requests += 1
        counters.items += num_rows
        counters.executed_items += num_rows
        counters.batches += 1
        counters.inline_batches += 1
        counters.steps += steps
        counters.compute_s.add(seconds)
        counters.queue_s.add(0.0)
        if counters.batches % MEASURE_EVERY == 0:
            self.observe(num_rows, num_steps, seconds)

    def observe(self, num_rows: int, num_steps: int, seconds: float) -> None:
        """Measure a batch of this shape."""
        self.cost_model.observe(num_rows, num_steps, seconds)
        self._row_costs.clear()

    def record_batch(
        self, batch: Batch, results: Sequence[SliceResult], started_at: float, ended_at: float, *, inline: bool
    ) -> None:
        """Count and measure a batch that was computed."""
        counters = self.counters
        if not batch.slices:
            return
        failed = sum(part.num_rows for part, result in results if isinstance(result, Exception))
        counters.failed_items += failed
        counters.executed_items += batch.num_rows - failed
        counters.batches += 1
        counters.inline_batches += inline
        counters.bisected_batches += failed > 0
        counters.steps += batch.steps or batch.num_rows
        counters.padded_steps += batch.num_rows * self.collator.computed_steps(batch.longest) - batch.steps
        counters.queue_s.add(started_at - min(part.request.arrived_at for part in batch.slices))
        counters.compute_s.add(ended_at - started_at)
        for part in batch.slices:
            if part.request.context.timings is not None:
                part.request.context.timings.append(Timing(part.request.arrived_at, started_at, ended_at))
        self.measured_at = ended_at
        if not failed:
            self.observe(batch.num_rows, batch.longest, ended_at - started_at)

    def capacity(self, num_steps: int) -> int:
        """Rows of this length in a full batch."""
        limits = self.limits
        if num_steps * limits.max_batch_items <= limits.max_batch_steps:
            return limits.max_batch_items
        return max(limits.max_batch_steps // num_steps, 1)

    def estimate(self, request: Request) -> CostEstimate:
        """Estimate the computing time of the request, and set the share of each of its slices."""
        work_s = batch_s = 0.0
        for part in self.slices(request):
            row_s, slow_s = self.row_cost(part.longest)
            part.work_s = row_s * part.num_rows
            work_s += part.work_s
            batch_s = max(batch_s, slow_s)
        return CostEstimate(
            counters=self.counters,
            num_rows=request.num_rows,
            queued_rows=self.num_rows,
            work_s=work_s,
            batch_s=batch_s,
            measured_at=self.measured_at,
        )

    def row_cost(self, num_steps: int) -> tuple[float, float]:
        """Seconds of computing for one row of this length, and of a full batch of such rows that is slow."""
        octave = (num_steps - 1).bit_length()
        cost = self._row_costs.get(octave)
        if cost is None:
            max_steps = num_steps and 1 << octave
            num_rows = self.capacity(max_steps)
            median_s = self.cost_model.predict(num_rows, max_steps, MEDIAN) or 0.0
            slow_s = self.cost_model.predict(num_rows, max_steps, SLOW) or 0.0
            cost = self._row_costs[octave] = median_s / num_rows, slow_s
        return cost

    def next_batch(self, now: float) -> Batch | None:
        """Take the most urgent batch out of the queue; None if nothing is queued."""
        batch = Batch(queue=self)
        urgent = self.most_urgent()
        if urgent is None:
            return None
        first = urgent.key
        self._pull(first, batch, now)
        if self.collator.is_ragged and self.collator.mixes_buckets and len(self._buckets) > (first in self._buckets):
            for key in sorted(self._buckets, key=lambda key: abs(key - first)):
                if batch.num_rows >= self.capacity(batch.longest):
                    break
                self._pull(key, batch, now)
        return batch

    def clear(self) -> list[Request]:
        """Empty the queue and return the requests that waited in it."""
        requests = {part.request: None for bucket in self._buckets.values() for part in bucket}
        for request in requests:
            self.discard(request, RequestStatus.DONE)
        return list(requests)

    def _pull(self, key: Any, batch: Batch, now: float) -> None:
        """Move slices of one bucket into the batch, the most urgent first, as long as they fit."""
        bucket = self._buckets.get(key)
        while bucket:
            part = bucket[0]
            request = part.request
            if request.status is not PENDING:
                bucket.popleft()
            elif part.deadline <= now:
                bucket.popleft()
                batch.expired.append(request)
                self.counters.expired_items += self.discard(request, RequestStatus.EXPIRED)
            else:
                free_rows = self.capacity(max(batch.longest, part.longest)) - batch.num_rows
                if free_rows <= 0 or self._wastes(batch, part):
                    return
                if part.num_rows > free_rows:
                    if batch.num_rows:
                        # Whole requests need no copy, and a part of one may waste more than all of it.
                        return
                    part = part.split(free_rows)
                    batch.add(part)
                    self._remove(part)
                    return
                bucket.popleft()
                part.is_queued = False
                batch.add(part)
                self._remove(part)

    def _wastes(self, batch: Batch, part: RequestSlice) -> bool:
        if not batch.slices or part.longest == batch.longest or not self.collator.mixes_buckets:
            return False
        padded = (batch.num_rows + part.num_rows) * max(batch.longest, part.longest)
        return padded - batch.steps - part.steps > self.limits.max_waste * padded

    def _remove(self, part: RequestSlice) -> None:
        self._backlog.remove(part.deadline, part.work_s)
        self.num_rows -= part.num_rows
        self.counters.queued_items -= part.num_rows


def _slice_of(request: Request, bucket: int, rows: list[int], lengths: list[int]) -> RequestSlice:
    """Some rows of a request as one slice; `lengths` are those of all its rows."""
    selected = [lengths[row] for row in rows]
    return RequestSlice(request, bucket, np.array(rows, np.intp), len(rows), max(selected), sum(selected))
