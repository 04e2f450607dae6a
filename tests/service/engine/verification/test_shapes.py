"""The warm-up shapes cover the limits of a model, and the model can run each of them."""

import pytest

from service.bundle import Bundle
from service.engine.limits import Limits
from service.engine.sessions.session import Session
from service.engine.verification.shapes import (
    Shape,
    doubling,
    doubling_with_midpoints,
    largest_shapes,
    warmup_shapes,
    zero_inputs,
)
from tests.service.bundles import CONTEXT, FAMILIES


def test_warmup_shapes_of_each_family(bundles: dict[str, Bundle]) -> None:
    shapes = {family: warmup_shapes(bundles[family].manifest) for family in FAMILIES}
    assert shapes["image-classifier"] == tuple(Shape(batch=n) for n in (1, 2, 4, 8))
    assert shapes["series-tagger"] == tuple(Shape(batch=n, steps=t) for t in (8, 12) for n in (1, 2, 4, 8))
    assert shapes["text-classifier"] == tuple(Shape(batch=n, steps=6) for n in (1, 2, 4, 8))
    letters = shapes["language-model"]
    assert {shape.past for shape in letters} == {64, 128, CONTEXT}
    assert {shape.batch for shape in letters if shape.steps == 1} == {1, 2, 4, 8}
    assert {(s.steps, s.past) for s in letters if s.steps != 1} == {(32, 64), (32, 128), (32, CONTEXT)}


def test_the_largest_shapes_are_within_the_limits(bundles: dict[str, Bundle]) -> None:
    shapes = {family: largest_shapes(bundles[family].manifest, Limits()) for family in FAMILIES}
    assert shapes["image-classifier"] == shapes["image-generator"] == (Shape(batch=8),)
    assert shapes["series-tagger"] == (Shape(batch=8, steps=1), Shape(batch=8, steps=12))
    decode = Shape(batch=8, steps=1, past=CONTEXT)
    assert shapes["language-model"] == (Shape(batch=1, steps=CONTEXT, past=CONTEXT), decode)
    small = Limits(max_batch_items=5, max_batch_steps=20)
    assert largest_shapes(bundles["image-classifier"].manifest, small) == (Shape(batch=5),)
    tagger = largest_shapes(bundles["series-tagger"].manifest, small)
    assert tagger == (Shape(batch=5, steps=1), Shape(batch=1, steps=12))


@pytest.mark.parametrize(
    ("limit", "doubled", "with_midpoints"),
    [(5, (5,), (5,)), (24, (8, 16, 24), (8, 16, 24)), (100, (8, 16, 32, 64, 100), (8, 16, 24, 32, 48, 64, 96, 100))],
)
def test_sizes_end_at_the_limit(limit: int, doubled: tuple[int, ...], with_midpoints: tuple[int, ...]) -> None:
    assert doubling(8, limit) == doubled
    assert doubling_with_midpoints(8, limit) == with_midpoints


@pytest.mark.parametrize("family", FAMILIES)
def test_a_session_runs_every_warmup_shape(family: str, sessions: dict[str, Session]) -> None:
    session = sessions[family]
    for shape in warmup_shapes(session.manifest):
        inputs = zero_inputs(session.manifest, shape)
        assert all(len(value) == shape.batch for value in inputs.values())
        assert all(len(value) == shape.batch for value in session.run(inputs).values())
        if "past_lengths" in inputs:
            assert (inputs["past_lengths"] + inputs["ids"].shape[1]).max() <= CONTEXT
        if "lengths" in inputs:
            assert (inputs["lengths"] == shape.steps).all()


def test_decode_steps_have_a_full_past_and_prompts_none(bundles: dict[str, Bundle]) -> None:
    manifest = bundles["language-model"].manifest
    for shape, past in (
        (Shape(batch=2, steps=1, past=64), 63),
        (Shape(batch=1, steps=8, past=64), 0),
        (Shape(batch=2, steps=1), 0),  # one slot, for the step itself
    ):
        inputs = zero_inputs(manifest, shape)
        assert (inputs["past_lengths"] == past).all()
        assert inputs["past_key_0"].shape[2] == (shape.past or 1)


def test_axes_that_a_model_does_not_have_are_none() -> None:
    assert Shape(batch=3) == Shape(batch=3, steps=None, past=None)
