"""How a run shows itself: a bar on a terminal, a line for each evaluation elsewhere, nothing on other workers."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

REFRESH_S = 0.2
METRICS = ("validation_accuracy", "validation_nats_per_character", "validation_loss")  # the first that there is


class Display:
    """Shows loss, metric, rate and time left of one run."""

    def __init__(self, name: str, *, start: float, visible: bool, console: Console | None = None) -> None:
        """`start` is the share of the run that was done before."""
        self.name = name
        self.console = console or Console(quiet=not visible)
        self.start, self.began = start, time.monotonic()
        self.refreshed = 0.0
        self.metric = ""
        self.steps: tuple[int, float] | None = None  # the last refresh's step and time
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%  {task.fields[facts]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not (visible and self.console.is_terminal),
        )
        self.task = self.bar.add_task(name, total=1.0, facts="")
        self.bar.update(self.task, completed=start)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, step: int, fraction: float, shown: Mapping[str, Tensor]) -> None:
        """Call after every step; the terminal is touched a few times a second."""
        now = time.monotonic()
        if self.bar.disable or now - self.refreshed < REFRESH_S:
            return
        losses = "  ".join(f"{name} {value.item():.4f}" for name, value in shown.items())
        rate = "" if self.steps is None else f"  {(step - self.steps[0]) / (now - self.steps[1]):.0f} steps/s"
        facts = f"step {step:,}  {losses}  {self.metric}{rate}  {self._left(fraction, now)}"
        self.bar.update(self.task, completed=fraction, facts=facts)
        self.refreshed, self.steps = now, (step, now)

    def evaluated(self, point: Mapping[str, float], fraction: float) -> None:
        """Call after every evaluation."""
        name = next((name for name in METRICS if name in point), None)
        self.metric = "" if name is None else f"{name.replace('_', ' ')} {point[name]:.4f}"
        if self.bar.disable:
            now = time.monotonic()
            self.console.print(
                f"{self.name}: step {point['step']:,.0f} ({fraction:.0%})  loss {point['loss']:.4f}  {self.metric}  "
                f"{self._left(fraction, now)}",
                highlight=False,
                soft_wrap=True,
            )

    def _left(self, fraction: float, now: float) -> str:
        done = fraction - self.start
        if done <= 0:
            return ""
        left = (now - self.began) / done * (1 - fraction)
        return f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left"
