"""The grid covers what a model admits, and every shape of it can be run."""

import pytest

from service.bundle import Bundle
from service.engine.sessions.session import Session
from service.engine.verification.shapes import Shape, by_halves, doubling, grid, inputs_at
from tests.service.bundles import CONTEXT, FAMILIES


def test_grids(bundles: dict[str, Bundle]) -> None:
    grids = {family: grid(bundles[family].manifest) for family in FAMILIES}
    assert grids["image-classifier"] == tuple(Shape(batch=n) for n in (1, 2, 4, 8))
    assert grids["series-tagger"] == tuple(Shape(batch=n, steps=t) for t in (8, 12) for n in (1, 2, 4, 8))
    assert grids["text-classifier"] == tuple(Shape(batch=n, steps=6) for n in (1, 2, 4, 8))
    letters = grids["language-model"]
    assert {shape.past for shape in letters} == {64, 128, CONTEXT}
    assert {shape.batch for shape in letters if shape.steps == 1} == {1, 2, 4, 8}
    assert {(s.steps, s.past) for s in letters if s.steps != 1} == {
        *((t, 64) for t in (8, 16, 32, 64)),
        *((t, 128) for t in (8, 16, 32, 64, 128)),
        *((t, CONTEXT) for t in (8, 16, 32, 64, 128, CONTEXT)),
    }


@pytest.mark.parametrize(
    ("limit", "doubled", "halved"),
    [(5, (5,), (5,)), (24, (8, 16, 24), (8, 16, 24)), (100, (8, 16, 32, 64, 100), (8, 16, 24, 32, 48, 64, 96, 100))],
)
def test_sizes_end_at_the_limit(limit: int, doubled: tuple[int, ...], halved: tuple[int, ...]) -> None:
    assert doubling(8, limit) == doubled
    assert by_halves(8, limit) == halved


@pytest.mark.parametrize("family", FAMILIES)
def test_every_shape_can_be_run(family: str, sessions: dict[str, Session]) -> None:
    session = sessions[family]
    for shape in grid(session.manifest):
        inputs = inputs_at(session.manifest, shape)
        assert all(len(value) == shape.batch for value in inputs.values())
        assert all(len(value) == shape.batch for value in session.run(inputs).values())
        if "past_lengths" in inputs:
            assert (inputs["past_lengths"] + inputs["ids"].shape[1]).max() <= CONTEXT
        if "lengths" in inputs:
            assert (inputs["lengths"] == shape.steps).all()
