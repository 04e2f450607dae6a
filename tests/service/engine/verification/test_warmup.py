"""Warming runs every shape on the session, and tells who batches how long they took."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from service.bundle import Bundle
from service.engine.runner import Runner
from service.engine.sessions.session import Session
from service.engine.verification.shapes import grid
from service.engine.verification.warmup import TIMED, warm
from tests.service.bundles import FAMILIES


class Batcher:
    """Forms batches of its own, and notes what it is told."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        self.shapes = shapes
        self.told: Counter[tuple[int, int]] = Counter()

    def grid(self, session: Session) -> Sequence[tuple[int, int]]:
        return self.shapes

    def observe(self, session: Session, num_rows: int, num_steps: int, seconds: float) -> None:
        assert seconds > 0
        self.told[num_rows, num_steps] += 1


class Noting(Session):
    """A session that notes the shapes it is run at."""

    def run(self, inputs: Any, outputs: Any = None) -> Any:
        self.seen = [*getattr(self, "seen", []), tuple(inputs["series"].shape[:2])]
        return super().run(inputs, outputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_shape_of_the_grid_is_run(family: str, sessions: dict[str, Session]) -> None:
    warmed = warm(sessions[family])
    assert warmed.num_shapes == len(grid(sessions[family].manifest))
    assert warmed.seconds > 0


def test_the_batches_are_those_of_who_batches(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["series-classifier"]
    session = Noting(bundle.model, manifest=bundle.manifest, device="cpu")
    batcher = Batcher([(1, 1), (5, 12), (8, 3)])
    assert warm(session, batcher).num_shapes == 3
    assert set(session.seen) == {(1, 1), (5, 12), (8, 3)}
    assert set(batcher.told) == {(1, 1), (5, 12), (8, 3)}
    assert all(1 <= count <= TIMED for count in batcher.told.values()), "the first run of a shape is not told"
    assert len(session.seen) == sum(batcher.told.values()) + 3


def test_the_steps_of_a_decoder_are_its_own(sessions: dict[str, Session]) -> None:
    batcher = Batcher([])
    assert warm(sessions["language-model"], batcher).num_shapes == len(grid(sessions["language-model"].manifest))
    assert not batcher.told


@pytest.mark.parametrize("family", FAMILIES)
def test_the_runner_s_batches_can_be_run_and_its_latency_is_known(family: str, sessions: dict[str, Session]) -> None:
    runner = Runner()
    warmed = warm(sessions[family], runner)
    if family != "language-model":
        assert warmed.num_shapes == len(runner.grid(sessions[family]))
    runner.close()


def test_a_model_without_steps_is_told_with_0(sessions: dict[str, Session]) -> None:
    batcher = Batcher([(2, 0)])
    warm(sessions["image-classifier"], batcher)
    assert set(batcher.told) == {(2, 0)}
