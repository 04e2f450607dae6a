"""The progress of a job on standard error: rows, rows/s, rejected rows and time left."""

import sys
import threading

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """A bar on a terminal, silent elsewhere. The total grows while the input is still being planned."""

    def __init__(self, title: str, *, visible: bool) -> None:
        self.rows = self.rejects = 0
        self._lock = threading.Lock()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows  {task.fields[rate]}/s  {task.fields[rejects]} rejected"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not visible,
        )
        self._task = self._progress.add_task(title, total=0, rate="-", rejects=0)
        self._progress.start()

    def add_planned(self, rows: int) -> None:
        with self._lock:
            total = self._progress.tasks[0].total or 0
            self._progress.update(self._task, total=total + rows)

    def add_done(self, rows: int, rejects: int) -> None:
        """Count rows; negative counts take back those of a shard that is scored again."""
        with self._lock:
            self.rows += rows
            self.rejects += rejects
            speed = self._progress.tasks[0].speed
            rate = f"{speed:,.0f}" if speed else "-"
            self._progress.update(self._task, advance=rows, rejects=self.rejects, rate=rate)

    def message(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()
