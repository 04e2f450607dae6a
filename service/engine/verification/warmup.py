"""Run every shape that a model admits before the first request asks for it.

onnxruntime plans memory and a GPU picks kernels at the first run of a shape. Invariant: a model that is READY has run
each shape of its grid on the device it serves on, and whoever batches for it knows how long each took.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.bundle import LanguageModel
from service.engine.sessions.session import Session
from service.engine.verification.shapes import Shape, grid, inputs_at

TIMED = 3  # runs of a shape after its first
ENOUGH_S = 0.005  # of one shape: a slow one is not run so often


class Batching(Protocol):
    """Whoever forms the batches and computes them (a Runner)."""

    def grid(self, session: Session) -> Sequence[tuple[int, int]]:
        """The shapes of its batches: rows, and steps (0 where the model has no such axis)."""

    def observe(self, session: Session, num_rows: int, num_steps: int, seconds: float) -> None:
        """Be told how long a batch takes."""


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """How many shapes were run, and how long all of it took."""

    num_shapes: int
    seconds: float


def warm(session: Session, batching: Batching | None = None) -> Warmed:
    """Run each shape of the grid, the batches of `batching` if it is given; tell it the times but the first."""
    began = time.perf_counter()
    if batching is None or isinstance(session.manifest.parameters, LanguageModel):  # the decoder forms its own
        shapes = grid(session.manifest)
        for shape in shapes:
            _times(session, shape)
        return Warmed(num_shapes=len(shapes), seconds=time.perf_counter() - began)
    batches = batching.grid(session)
    for num_rows, num_steps in batches:
        for seconds in _times(session, Shape(batch=num_rows, steps=num_steps or None))[1:]:
            batching.observe(session, num_rows, num_steps, seconds)
    return Warmed(num_shapes=len(batches), seconds=time.perf_counter() - began)


def _times(session: Session, shape: Shape) -> list[float]:
    """Of the first run, and of those that follow it."""
    inputs = inputs_at(session.manifest, shape)
    times: list[float] = []
    while len(times) <= 1 or (len(times) <= TIMED and sum(times) < ENOUGH_S):
        began = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - began)
    return times
