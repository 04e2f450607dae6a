"""Reports the progress of a job while it runs: a bar on a terminal, or lines in a log; a file; metrics; a callback.

Invariant: what watches a job never fails it. One thread reports, and each fault of a report is told once.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from service.scoring.progress import Progress, Snapshot

Display = Literal["bar", "lines", "none"]
Report = Callable[[Snapshot], None]
TICK_S = 0.5
LINE_INTERVAL_S = 30.0
REPORT_INTERVAL_S = 5.0


class Reporter(AbstractContextManager["Reporter"]):
    """Reports `progress` from the start to the end of the block, and to each of `reports` every few seconds.

    `on_progress` is called twice a second, and at the end.
    """

    def __init__(
        self,
        title: str,
        progress: Progress,
        *,
        display: Display,
        reports: Sequence[Report] = (),
        on_progress: Report | None = None,
    ) -> None:
        self.progress = progress
        self._title, self._display = title, display
        self._reports, self._on_progress = reports, on_progress
        self._faults: set[str] = set()
        self._console = Console(file=sys.stderr)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows  {task.fields[rate]}/s  {task.fields[rejects]} rejected"),
            TimeRemainingColumn(),
            console=self._console,
            disable=display != "bar",
        )
        self._task = self._bar.add_task(title, total=0, rate="-", rejects=0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def __enter__(self) -> "Reporter":
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._tick(with_reports=True)
        self._bar.stop()

    def message(self, text: str) -> None:
        """Print a line to standard error, beside the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _run(self) -> None:
        line_at = time.monotonic() + LINE_INTERVAL_S
        report_at = 0.0
        while not self._stop.wait(TICK_S):
            now = time.monotonic()
            snapshot = self._tick(with_reports=now >= report_at)
            report_at = now + REPORT_INTERVAL_S if now >= report_at else report_at
            if self._display == "lines" and now >= line_at:
                line_at = now + LINE_INTERVAL_S
                self.message(f"{self._title}: {snapshot}")

    def _tick(self, *, with_reports: bool) -> Snapshot:
        snapshot = self.progress.snapshot()
        rate = f"{snapshot.rows_per_s:,.0f}" if snapshot.rows_per_s else "-"
        self._bar.update(
            self._task, total=snapshot.planned, completed=snapshot.rows, rejects=snapshot.rejected, rate=rate
        )
        if self._on_progress is not None:
            self._guarded(self._on_progress, snapshot)
        if with_reports:
            for report in self._reports:
                self._guarded(report, snapshot)
        return snapshot

    def _guarded(self, report: Report, snapshot: Snapshot) -> None:
        try:
            report(snapshot)
        except Exception as error:  # noqa: BLE001 - a report is not worth a job
            fault = f"progress is not reported: {type(error).__name__}: {error}"
            if fault not in self._faults:
                self._faults.add(fault)
                self.message(fault)
