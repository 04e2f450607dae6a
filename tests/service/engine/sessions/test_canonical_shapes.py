"""A shape strategy changes the shapes at which a graph runs, but not the shapes that the caller sees."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from service.bundle import Bundle
from service.engine.sessions.canonical_shapes import with_shape_strategy
from service.engine.sessions.session import Session
from service.manifest import Invariance, Manifest
from tests.service.bundles import example_inputs
from tests.service.engine.fakes import manifest, rows

BOUNDS = {"none": (), "minimum-batch-2": (), "batch-buckets": (4, 8), "length-buckets": (4, 16)}


def with_strategy(manifest: Manifest, strategy: Any) -> Manifest:
    fields = {"level": "bitwise", "measured": 0, "how": "", "strategy": strategy, "bounds": BOUNDS[strategy]}
    return manifest.model_copy(update={"invariance": Invariance.model_validate(fields)})


class RecordingCompute:
    """Returns the series as scores and the state plus one; records the shapes of its runs."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        self.shapes.append(inputs["series"].shape[:2])
        assert {len(value) for value in inputs.values()} == {len(inputs["series"])}
        answer = {"logits": inputs["series"], "next_h": inputs["h"] + 1}
        return {name: answer[name] for name in names}


@pytest.mark.parametrize(
    ("strategy", "lengths", "shapes"),
    [
        ("none", (3,), [(1, 3)]),
        ("minimum-batch-2", (3,), [(2, 3)]),
        ("minimum-batch-2", (3, 2, 1), [(3, 3)]),
        ("batch-buckets", (3,), [(4, 3)]),
        ("batch-buckets", (1,) * 4, [(4, 1)]),
        ("batch-buckets", (1,) * 5, [(8, 1)]),
        ("batch-buckets", (1,) * 9, [(16, 1)]),
        ("batch-buckets", (1,) * 8, [(8, 1)]),
        ("length-buckets", (3,), [(2, 4)]),
        ("length-buckets", (2,), [(2, 4)]),
        ("length-buckets", (2, 5, 4, 16), [(2, 4), (2, 16)]),
    ],
)
def test_computes_at_canonical_shapes_and_returns_the_caller_s_shapes(
    strategy: str, lengths: tuple[int, ...], shapes: list[tuple[int, int]]
) -> None:
    compute, inputs = RecordingCompute(), rows(*lengths)
    inputs["series"][np.arange(max(lengths)) >= inputs["lengths"][:, None]] = 0
    answer = with_shape_strategy(with_strategy(manifest("series-tagger"), strategy), compute)(
        inputs, ("next_h", "logits")
    )
    assert compute.shapes == shapes
    assert list(answer) == ["next_h", "logits"]
    np.testing.assert_array_equal(answer["logits"], inputs["series"])
    np.testing.assert_array_equal(answer["next_h"], inputs["h"] + 1)


@pytest.mark.parametrize("strategy", BOUNDS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_session_applies_its_strategy(bundles: dict[str, Bundle], strategy: str, batch: int) -> None:
    bundle = bundles["series-tagger"]
    session = Session(bundle.model, manifest=with_strategy(bundle.manifest, strategy), device="cpu")
    unpadded = Session(bundle.model, manifest=with_strategy(bundle.manifest, "none"), device="cpu")
    inputs = example_inputs("series-tagger", batch=batch)
    expected, answer = unpadded.run(inputs), session.run(inputs)
    for name in ("next_h", "next_c"):
        np.testing.assert_allclose(answer[name], expected[name], atol=1e-6)
    assert {name: value.shape for name, value in answer.items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert session.length_buckets == ((4, 16) if strategy == "length-buckets" else None)


@pytest.mark.parametrize("strategy", BOUNDS)
def test_an_input_that_does_not_fit_is_named_under_every_strategy(bundles: dict[str, Bundle], strategy: str) -> None:
    bundle = bundles["series-tagger"]
    session = Session(bundle.model, manifest=with_strategy(bundle.manifest, strategy), device="cpu")
    with pytest.raises(ValueError, match=r"inputs \[\], expected \['c', 'h', 'lengths', 'series'\]"):
        session.run({})


@pytest.mark.parametrize(
    ("strategy", "bounds", "message"),
    [
        ("batch-buckets", (), "only buckets have bounds"),
        ("none", (4,), "only buckets have bounds"),
        ("batch-buckets", (8, 4), "do not ascend"),
    ],
)
def test_only_buckets_have_bounds_and_they_ascend(strategy: Any, bounds: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Invariance(level="bitwise", measured=0, how="", strategy=strategy, bounds=bounds)


@pytest.mark.parametrize(
    ("family", "bounds", "message"),
    [("series-tagger", (2,), "length-buckets end at 2"), ("image-classifier", (8,), "needs a model with lengths")],
)
def test_length_buckets_must_cover_every_length(family: str, bounds: tuple[int, ...], message: str) -> None:
    invariance = {"level": "bitwise", "measured": 0, "how": "", "strategy": "length-buckets", "bounds": bounds}
    with pytest.raises(ValueError, match=message):
        manifest(family, invariance=invariance)


def test_a_manifest_without_a_strategy_has_an_unchanged_version() -> None:
    old = manifest("image-classifier")
    assert old.invariance.strategy == "none"
    changed = with_strategy(old, "minimum-batch-2")
    assert changed.content_version() != old.content_version()
