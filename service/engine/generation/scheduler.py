"""Which rows take part in the next step: decode first, then chunks of prompts, within a budget of tokens.

Rows join and leave between steps. A row is admitted when a place and the memory for its whole completion are free, so
that a row that has begun is never interrupted.
"""

from collections import deque
from collections.abc import Iterable
from time import monotonic

from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import PREFILL_CHUNK, BatchCache, RowCache, cache_capacity, token_bytes
from service.engine.generation.sequence import RowStatus, SequenceState
from service.engine.sessions.device import Device
from service.engine.sessions.key_values import KeyValues

MAX_STEP_TOKENS = 128


class DecodeBatch:
    """Rows that decode in one run; row i has slot i of the cache. No row joins a batch that is not `is_open`."""

    def __init__(self, head: LanguageModelHead, capacity: int, device: Device, *, is_open: bool = True) -> None:
        self.rows: list[SequenceState] = []
        self.cache = BatchCache(head, capacity, device)
        self.is_open = is_open

    def add(self, row: SequenceState, source: KeyValues, slot: int, length: int) -> None:
        self.cache.add(source, slot, length)
        self.rows.append(row)

    def remove(self, slot: int, *, clear: bool = False) -> None:
        self.cache.remove(slot, clear=clear)
        self.rows[slot] = self.rows[-1]
        self.rows.pop()


class Scheduler:
    """Not thread-safe: it belongs to one decode loop."""

    def __init__(
        self, head: LanguageModelHead, context: int, *, max_rows: int, max_bytes: int, device: Device = "cpu"
    ) -> None:
        self._head, self._device = head, device
        self._context = context
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self.waiting: deque[SequenceState] = deque()
        self._prefilling: list[SequenceState] = []
        self._batches: list[DecodeBatch] = []
        self.num_running = 0
        self.reserved_bytes = 0  # for the whole completions of the running rows

    def add(self, rows: Iterable[SequenceState]) -> None:
        self.waiting.extend(rows)

    def plan(self) -> list[DecodeBatch | SequenceState]:
        """Admit waiting rows and return the runs of the next step in order.

        A batch decodes one token of every row; a row reads one chunk of its prompt for each time that it is named. A
        step reads at least one chunk, so that new rows start while many decode.
        """
        self._admit()
        # A row that grows moves to a larger batch, which has had its run then.
        self._batches = sorted(
            (batch for batch in self._batches if batch.rows), key=lambda batch: -batch.cache.capacity
        )
        budget = max(1, (MAX_STEP_TOKENS - sum(len(batch.rows) for batch in self._batches)) // PREFILL_CHUNK)
        chunks: list[SequenceState] = []
        for row in self._prefilling:
            length = 0 if row.cache is None else row.cache.length
            chunks += [row] * -(-(row.prompt.size - length) // PREFILL_CHUNK)
        return [*self._batches, *chunks[:budget]]

    def drop_cancelled(self) -> int:
        """Remove the rows that their requests no longer wait for, and return their number."""
        cancelled = [row for row in self.rows() if row.is_cancelled]
        for row in cancelled:
            self.remove(row)
        num_waiting = len(self.waiting)
        if any(row.is_cancelled for row in self.waiting):
            self.waiting = deque(row for row in self.waiting if not row.is_cancelled)
        return len(cancelled) + num_waiting - len(self.waiting)

    def new_cache(self) -> RowCache:
        return RowCache(self._head, self._context, self._device)

    def start_decoding(self, row: SequenceState) -> None:
        """Move a row whose prompt is read to the batch of its capacity."""
        assert row.cache is not None
        self._join(row, row.cache.values, 0, row.cache.length)
        self._prefilling.remove(row)
        row.status, row.cache = RowStatus.DECODING, None

    def move_grown(self, batch: DecodeBatch) -> None:
        """Move the rows of which the next token needs more slots to a larger batch."""
        for slot in reversed(range(len(batch.rows))):
            row = batch.rows[slot]
            if row.position > batch.cache.capacity:
                self._join(row, batch.cache.values, slot, row.position - 1)
                batch.remove(slot)

    def isolate(self, batch: DecodeBatch) -> None:
        """Give each row of a batch that failed a batch of its own."""
        singles: list[DecodeBatch] = []
        for slot, row in enumerate(batch.rows):
            single = DecodeBatch(self._head, batch.cache.capacity, self._device, is_open=False)
            single.add(row, batch.cache.values, slot, row.position - 1)
            singles.append(single)
        self._batches.remove(batch)
        self._batches += singles

    def remove(self, row: SequenceState, *, clear: bool = False) -> None:
        """Free the place and the memory of a row that has ended; `clear` if its keys and values may not be finite."""
        if row.status is RowStatus.PREFILLING:
            self._prefilling.remove(row)
        elif row.status is RowStatus.DECODING:
            batch = next(batch for batch in self._batches if row in batch.rows)
            batch.remove(batch.rows.index(row), clear=clear)
        row.status, row.cache = RowStatus.FINISHED, None
        self.num_running -= 1
        self.reserved_bytes -= self._row_bytes(row)

    def clear(self) -> tuple[list[SequenceState], list[SequenceState]]:
        """Forget all rows, and return those that were running and those that waited.

        It computes nothing, so that it does not fail, and a row that an error left in two batches comes once.
        """
        running, waiting = list(dict.fromkeys(self.rows())), list(self.waiting)
        for row in running:
            row.status, row.cache = RowStatus.FINISHED, None
        self.waiting.clear()
        self._prefilling, self._batches = [], []
        self.num_running = self.reserved_bytes = 0
        return running, waiting

    def rows(self) -> list[SequenceState]:
        return [*self._prefilling, *(row for batch in self._batches for row in batch.rows)]

    def _join(self, row: SequenceState, source: KeyValues, slot: int, length: int) -> None:
        capacity = cache_capacity(length + 1, self._context)
        batches = (batch for batch in self._batches if batch.is_open and batch.cache.capacity == capacity)
        batch = next(batches, None)
        if batch is None:
            batch = DecodeBatch(self._head, capacity, self._device)
            self._batches.append(batch)
        batch.add(row, source, slot, length)

    def _admit(self) -> None:
        while self.waiting and self._has_room(self.waiting[0]):
            row = self.waiting.popleft()
            row.status, row.started_at = RowStatus.PREFILLING, monotonic()
            self._prefilling.append(row)
            self.num_running += 1
            self.reserved_bytes += self._row_bytes(row)

    def _has_room(self, row: SequenceState) -> bool:
        if not self.num_running:
            return True
        return self.num_running < self._max_rows and self.reserved_bytes + self._row_bytes(row) <= self._max_bytes

    def _row_bytes(self, row: SequenceState) -> int:
        return row.max_capacity * token_bytes(self._head)
