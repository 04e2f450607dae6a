"""The progress of a job: what is planned, scored and rejected so far, how fast, and how long it will take.

Counts come from any thread. Invariant: rows that were committed before this run count as scored, but not for the rate.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

RATE_WINDOW_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The progress at one moment; `seconds_left` is None until it can be told, and grows while the plan does."""

    rows: int  # scored or rejected, by this run and before it
    rejected: int  # by this run
    planned: int
    is_planned: bool  # the plan is complete
    rows_per_s: float
    seconds_left: float | None
    workers: int

    def __str__(self) -> str:
        planned = f"{self.planned:,}" if self.is_planned else f"at least {self.planned:,}"
        left = "" if self.seconds_left is None else f", {self.seconds_left:,.0f} s left"
        counts = f"{self.rows:,} of {planned} rows, {self.rows_per_s:,.0f}/s, {self.rejected:,} rejected"
        return f"{counts}, {self.workers} workers{left}"


class Progress:
    """`rows` and `rejected` are those of this run."""

    def __init__(self) -> None:
        self.rows = self.rejected = 0
        self.workers = 0
        self._committed = self._planned = 0
        self._is_planned = False
        self._lock = threading.Lock()
        self._samples = deque([(time.monotonic(), 0)])  # times, and the rows at them

    def add_planned(self, rows: int, *, committed: bool) -> None:
        """Count rows of the plan; `committed` ones were scored before this run."""
        with self._lock:
            self._planned += rows
            self._committed += rows * committed

    def end_plan(self) -> None:
        """The plan has reached its end."""
        self._is_planned = True

    def add_done(self, rows: int, rejects: int) -> None:
        """Count rows; negative counts take back those of a shard that is scored again."""
        with self._lock:
            self.rows += rows
            self.rejected += rejects

    def snapshot(self) -> Snapshot:
        """Return the progress now; the rate is that of the last RATE_WINDOW_S seconds."""
        with self._lock:
            now = time.monotonic()
            self._samples.append((now, self.rows))
            while len(self._samples) > 2 and self._samples[1][0] < now - RATE_WINDOW_S:
                self._samples.popleft()
            began, before = self._samples[0]
            rate = max(self.rows - before, 0) / max(now - began, 1e-3)
            left = max(self._planned - self._committed - self.rows, 0)
            return Snapshot(
                rows=self._committed + self.rows,
                rejected=self.rejected,
                planned=self._planned,
                is_planned=self._is_planned,
                rows_per_s=rate,
                seconds_left=left / rate if rate else None,
                workers=self.workers,
            )
