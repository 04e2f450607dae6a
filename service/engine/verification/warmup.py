"""Run every shape that a model admits before the first request does.

onnxruntime plans memory, and a GPU selects kernels, at the first run of a shape. Invariant: a READY model has run each
warm-up shape on the device that it serves on, and the batch planner knows how long each shape took.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from service.contract.heads import LanguageModelHead
from service.engine.limits import Limits
from service.engine.sessions.key_values import create_key_values
from service.engine.sessions.session import Session
from service.engine.verification.shapes import Shape, warmup_shapes, zero_inputs

MAX_TIMED_RUNS = 3  # per shape, after its first run
TIMING_BUDGET_S = 0.005  # per shape: once it is spent, the shape is not timed again
# On a CPU, a first run that takes this long is no slower than the next one (median 0.99, 98 shapes), so it counts.
SLOW_FIRST_RUN_S = 0.002


class BatchPlanner(Protocol):
    """The part of the runner that warm-up needs: it forms the batches and predicts how long they take."""

    limits: Limits

    def grid(self, session: Session) -> Sequence[tuple[int, int]]:
        """Return the shapes of its batches as (rows, steps); steps are 0 for models without that axis."""

    def observe(self, session: Session, num_rows: int, num_steps: int, seconds: float) -> None:
        """Record how long a batch of this shape took."""


def warm_up(session: Session, planner: BatchPlanner | None = None) -> int:
    """Run the planner's batches, or the manifest's warm-up shapes without a planner; return the number of shapes.

    The planner observes every run of a shape but the first, which includes the planning of memory and kernels. On a CPU
    it observes a slow first run, and there is no other. On a GPU a language model decodes as many rows as are admitted.
    """
    # The decoder forms the batches of a language model itself, and the planner knows no axes but steps.
    if planner is None or session.manifest.limits.axes or isinstance(session.manifest.head, LanguageModelHead):
        admitted = None if planner is None or session.device == "cpu" else planner.limits
        shapes = warmup_shapes(session.manifest, admitted)
        for shape in shapes:
            _time_runs(session, shape)
        return len(shapes)
    batches = planner.grid(session)
    for num_rows, num_steps in batches:
        times = _time_runs(session, Shape(batch=num_rows, steps=num_steps or None))
        for seconds in times[1:] or times:
            planner.observe(session, num_rows, num_steps, seconds)
    return len(batches)


def _time_runs(session: Session, shape: Shape) -> list[float]:
    run = _run_of(session, shape)
    times: list[float] = []
    while len(times) <= 1 or (len(times) <= MAX_TIMED_RUNS and sum(times) < TIMING_BUDGET_S):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
        if session.device == "cpu" and times[0] >= SLOW_FIRST_RUN_S:
            break
    return times


def _run_of(session: Session, shape: Shape) -> Callable[[], object]:
    """Return a run at this shape, as the service computes it."""
    inputs, head = zero_inputs(session.manifest, shape), session.manifest.head
    if session.device == "cpu" or not isinstance(head, LanguageModelHead):
        return partial(session.run, inputs)
    assert shape.past is not None
    values = create_key_values(head, session.device)
    values.resize(shape.batch, shape.past)
    return partial(values.extend, session, inputs["ids"], inputs["past_lengths"])
