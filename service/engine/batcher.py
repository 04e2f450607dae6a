"""The queue of one model: rows of requests wait here, and leave it as batches.

The most urgent row leads a batch; the others are the most urgent ones of its length and, as long as padding stays below
`max_waste`, of the lengths next to it. A row leaves the queue once: computed, expired or cancelled. Not safe to share
between threads: the runner holds its lock around every call.
"""

from bisect import insort
from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Any
from weakref import ref

import numpy as np

from service.engine.admission import Admission
from service.engine.batch import Batch, Outcome
from service.engine.counters import Counters
from service.engine.latency import LATE, USUAL, Latency
from service.engine.layout import Layout, Tensors
from service.engine.limits import INLINE_S, Limits
from service.engine.request import Piece, Request
from service.engine.sessions.session import Session

OBSERVE_EVERY = 4  # one in so many requests that meet no other is measured
URGENCY = attrgetter("deadline")


class Batcher:
    def __init__(self, layout: Layout, limits: Limits, counters: Counters, admission: Admission) -> None:
        self.layout = layout
        self.limits = limits
        self.counters = counters
        self.session: ref[Session] | None = None  # never kept alive by its queue
        self._admission = admission
        self.latency = Latency()
        self.observed_at = 0.0
        self.num_rows = 0
        self._queues: dict[Any, deque[Piece]] = {}  # by their keys, the most urgent first
        self._costs: dict[int, tuple[float, float]] = {}

    def pieces(self, request: Request) -> Sequence[Piece]:
        """The rows of a request, each piece of rows that may always run together; the same pieces each time."""
        if not request.pieces:
            request.pieces = self._cut(request)
        return request.pieces

    def _cut(self, request: Request) -> Sequence[Piece]:
        layout = self.layout
        if not layout.ragged:
            num_rows, size = request.num_rows, request.num_steps
            key = layout.key(request.inputs)
            return (Piece(request, key, slice(0, num_rows), num_rows, size, num_rows * size),)
        lengths_B = request.inputs["lengths"]
        if request.num_rows == 1:
            length = lengths_B.item()
            return (Piece(request, layout.bucket(length), slice(0, 1), 1, length, length),)
        buckets = np.array([layout.bucket(length) for length in lengths_B.tolist()])
        pieces = []
        for bucket in np.unique(buckets).tolist():
            rows = np.flatnonzero(buckets == bucket)
            lengths = lengths_B[rows]
            where: Any = slice(0, request.num_rows) if rows.size == request.num_rows else rows
            pieces.append(Piece(request, bucket, where, rows.size, int(lengths.max()), int(lengths.sum())))
        return pieces

    def quick(self, requests: Sequence[Request], *, beside: bool = True) -> list[Batch]:
        """These requests, in their order, as batches that are quick, without any queueing.

        None unless all are alike; none if one is half a batch by itself and a thread can run `beside` this one.
        """
        pieces: list[Piece] = []
        longest = 0
        for request in requests:
            if request.batcher is not self or request.future.done():
                return []
            own = self.pieces(request)
            if len(own) > 1 or (pieces and own[0].key != pieces[0].key):
                return []
            pieces.append(own[0])
            longest = max(longest, own[0].longest)
        full = room = self.room(longest)
        while room > 1 and not self.is_quick(room, longest):
            room //= 2
        batches: list[Batch] = []
        for piece in pieces:
            if not batches or batches[-1].num_rows + piece.count > room:
                if (
                    piece.count > room
                    or (beside and 2 * piece.count >= full)
                    or not self.is_quick(piece.count, longest)
                ):
                    return []
                batches.append(Batch(batcher=self))
            batches[-1].add(piece)
        return batches

    def count(self, request: Request) -> None:
        """The request is admitted."""
        self.counters.requests += 1
        self.counters.items += request.num_rows

    def push(self, piece: Piece) -> None:
        queue = self._queues.get(piece.key)
        if queue is None:
            queue = self._queues[piece.key] = deque()
        if queue and piece.deadline < queue[-1].deadline:
            insort(queue, piece, key=URGENCY)
        else:
            queue.append(piece)
        piece.is_queued = True
        if not piece.price_s:
            piece.price_s = self.cost(piece.longest)[0] * piece.count
        self._admission.queued(piece.deadline, piece.price_s)
        self.num_rows += piece.count
        self.counters.queued_items += piece.count

    def discard(self, request: Request) -> int:
        """Nothing of this request is computed any more; returns how many rows of it were still queued."""
        request.gone = True
        left = 0
        for piece in request.pieces:
            if piece.is_queued:
                piece.is_queued = False
                self._left(piece)
                left += piece.count
        return left

    def urgent(self) -> Piece | None:
        """The piece whose deadline comes first."""
        best = None
        for key in list(self._queues):
            queue = self._queues[key]
            while queue and queue[0].request.gone:
                queue.popleft()
            if not queue:
                del self._queues[key]
            elif best is None or queue[0].deadline < best.deadline:
                best = queue[0]
        return best

    def is_quick(self, num_rows: int, num_steps: int) -> bool:
        """Should a batch of this size be done before a change of threads pays off?"""
        seconds = self.latency.foretell(num_rows, num_steps, USUAL)
        return seconds is not None and seconds <= INLINE_S

    def fits(self, urgent: Piece, limit_s: float) -> bool:
        """Should the batch that `take` would give now, with this piece at its head, be done within `limit_s`?"""
        longest = urgent.longest
        seconds = self.latency.foretell(min(self.num_rows, self.room(longest)), longest, USUAL)
        return seconds is not None and seconds <= limit_s

    def foretell(self, batch: Batch) -> float:
        """Seconds that a batch usually takes; 0 if nobody knows."""
        return self.latency.foretell(batch.num_rows, batch.longest, USUAL) or 0.0

    def note_alone(self, inputs: Tensors, num_rows: int, seconds: float) -> None:
        """Count and measure a request that was run as it came."""
        counters = self.counters
        num_steps = self.layout.num_steps(inputs)
        steps = num_rows * max(num_steps, 1)
        if self.layout.ragged:
            lengths = inputs["lengths"]
            steps = lengths.item() if num_rows == 1 else int(lengths.sum())
            if not self.layout.mixes:  # rows are computed at the bucket of the longest, however they are padded
                num_steps = steps if num_rows == 1 else int(lengths.max())
            counters.padded_steps += num_rows * self.layout.computed_steps(num_steps) - steps
        counters.requests += 1
        counters.items += num_rows
        counters.executed_items += num_rows
        counters.batches += 1
        counters.inline_batches += 1
        counters.steps += steps
        counters.compute_s.add(seconds)
        counters.queue_s.add(0.0)
        if counters.batches % OBSERVE_EVERY == 0:
            self.observe(num_rows, num_steps, seconds)

    def observe(self, num_rows: int, num_steps: int, seconds: float) -> None:
        """A batch of this shape took so long."""
        self.latency.observe(num_rows, num_steps, seconds)
        self._costs.clear()

    def note(self, batch: Batch, outcomes: Sequence[Outcome], began: float, ended: float, *, inline: bool) -> None:
        """Count and measure a batch that was run."""
        counters = self.counters
        if not batch.pieces:
            return
        failed = sum(piece.count for piece, result in outcomes if isinstance(result, Exception))
        counters.failed_items += failed
        counters.executed_items += batch.num_rows - failed
        counters.batches += 1
        counters.inline_batches += inline
        counters.bisected_batches += failed > 0
        counters.steps += batch.steps or batch.num_rows
        counters.padded_steps += batch.num_rows * self.layout.computed_steps(batch.longest) - batch.steps
        counters.queue_s.add(began - min(piece.request.arrived for piece in batch.pieces))
        counters.compute_s.add(ended - began)
        self.observed_at = ended
        if not failed:
            self.observe(batch.num_rows, batch.longest, ended - began)

    def room(self, num_steps: int) -> int:
        """Rows of this length in a full batch."""
        limits = self.limits
        if num_steps * limits.max_batch_items <= limits.max_batch_steps:
            return limits.max_batch_items
        return max(limits.max_batch_steps // num_steps, 1)

    def cost(self, num_steps: int) -> tuple[float, float]:
        """Seconds of computing for a row of this length, and until its batch is done, if that is full and slow."""
        octave = (num_steps - 1).bit_length()
        found = self._costs.get(octave)
        if found is None:
            most_steps = num_steps and 1 << octave
            room = self.room(most_steps)
            usual_s = self.latency.foretell(room, most_steps, USUAL) or 0.0
            late_s = self.latency.foretell(room, most_steps, LATE) or 0.0
            found = self._costs[octave] = usual_s / room, late_s
        return found

    def take(self, now: float) -> Batch | None:
        """The next batch, or None if nothing is queued."""
        batch = Batch(batcher=self)
        urgent = self.urgent()
        if urgent is None:
            return None
        lead = urgent.key
        self._pull(lead, batch, now)
        if self.layout.ragged and self.layout.mixes and len(self._queues) > (lead in self._queues):
            for key in sorted(self._queues, key=lambda key: abs(key - lead)):
                if batch.num_rows >= self.room(batch.longest):
                    break
                self._pull(key, batch, now)
        return batch

    def clear(self) -> list[Request]:
        """Nothing that is queued is computed; returns who waits for it."""
        requests = {piece.request: None for queue in self._queues.values() for piece in queue}
        for request in requests:
            self.discard(request)
        return list(requests)

    def _pull(self, key: Any, batch: Batch, now: float) -> None:
        """Move pieces of one bucket into the batch, the most urgent first, as long as they fit."""
        queue = self._queues.get(key)
        while queue:
            piece = queue[0]
            request = piece.request
            if request.gone:
                queue.popleft()
            elif piece.deadline <= now:
                queue.popleft()
                batch.expired.append(request)
                self.counters.expired_items += self.discard(request)
            else:
                room = self.room(max(batch.longest, piece.longest)) - batch.num_rows
                if room <= 0 or self._wastes(batch, piece):
                    return
                if piece.count > room:
                    if batch.num_rows:
                        return  # whole requests are not copied, and part of one might waste more than all of it
                    piece = piece.split(room)
                    batch.add(piece)
                    self._left(piece)
                    return
                queue.popleft()
                piece.is_queued = False
                batch.add(piece)
                self._left(piece)

    def _wastes(self, batch: Batch, piece: Piece) -> bool:
        if not batch.pieces or piece.longest == batch.longest or not self.layout.mixes:
            return False
        padded = (batch.num_rows + piece.count) * max(batch.longest, piece.longest)
        return padded - batch.steps - piece.steps > self.limits.max_waste * padded

    def _left(self, piece: Piece) -> None:
        self._admission.left(piece.deadline, piece.price_s)
        self.num_rows -= piece.count
        self.counters.queued_items -= piece.count
