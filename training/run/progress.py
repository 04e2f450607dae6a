"""Display of a run's progress: a bar on a terminal, otherwise one line per evaluation; only for the main worker."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

REFRESH_S = 0.2

# The display shows the first of these metrics that the evaluation has.
METRICS = ("validation_accuracy", "validation_nats_per_character", "validation_loss")


class Display:
    """Shows the losses, validation metric, step rate and remaining time of one run."""

    def __init__(self, name: str, *, start: float, visible: bool, console: Console | None = None) -> None:
        """`start` is the fraction of the run that an earlier process completed."""
        self.name = name
        self.console = console or Console(quiet=not visible)
        self.start, self.started_at = start, time.monotonic()
        self.refreshed_at = 0.0
        self.metric = ""
        self.last_refresh: tuple[int, float] | None = None  # step, time
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%  {task.fields[status]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not (visible and self.console.is_terminal),
        )
        self.task = self.bar.add_task(name, total=1.0, status="")
        self.bar.update(self.task, completed=start)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show_step(self, step: int, fraction: float, losses: Mapping[str, Tensor]) -> None:
        """Show a step; call after every step, the bar itself is redrawn at most every REFRESH_S."""
        now = time.monotonic()
        if self.bar.disable or now - self.refreshed_at < REFRESH_S:
            return
        loss_text = "  ".join(f"{name} {value.item():.4f}" for name, value in losses.items())
        last = self.last_refresh
        rate = "" if last is None else f"  {(step - last[0]) / (now - last[1]):.0f} steps/s"
        status = f"step {step:,}  {loss_text}  {self.metric}{rate}  {self.time_left(fraction, now)}"
        self.bar.update(self.task, completed=fraction, status=status)
        self.refreshed_at, self.last_refresh = now, (step, now)

    def show_evaluation(self, point: Mapping[str, float], fraction: float) -> None:
        """Show a point of the curves; call after every evaluation."""
        name = next((name for name in METRICS if name in point), None)
        self.metric = "" if name is None else f"{name.replace('_', ' ')} {point[name]:.4f}"
        if self.bar.disable:
            self.console.print(
                f"{self.name}: step {point['step']:,.0f} ({fraction:.0%})  loss {point['loss']:.4f}  {self.metric}  "
                f"{self.time_left(fraction, time.monotonic())}",
                highlight=False,
                soft_wrap=True,
            )

    def time_left(self, fraction: float, now: float) -> str:
        """The remaining time at the speed of this process; "" before its first step."""
        done = fraction - self.start
        if done <= 0:
            return ""
        left_s = (now - self.started_at) / done * (1 - fraction)
        return f"{left_s:.0f} s left" if left_s < 120 else f"{left_s / 60:.0f} min left"
