"""Tests of the comparison of results and of the replay of goldens."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.bundle import Bundle, open_bundle
from service.engine.sessions.session import Session
from service.engine.verification.parity import (
    compare,
    relative_error,
    replay_cases,
    rounding_limit,
    row_ratios,
)
from service.errors import BundleError
from service.manifest import Manifest
from tests.service.bundles import FAMILIES, bundle_files, golden_cases

ARRAYS = hnp.arrays(np.float32, (2, 3), elements=st.floats(-1e3, 1e3, width=32))


@given(reference=ARRAYS, actual=ARRAYS, atol=st.floats(0, 1), rtol=st.floats(0, 1))
def test_floats_agree_like_numpy_allclose(reference: np.ndarray, actual: np.ndarray, atol: float, rtol: float) -> None:
    reference_f64, actual_f64 = reference.astype(np.float64), actual.astype(np.float64)
    difference = compare(reference, actual, atol=atol, rtol=rtol)
    assert difference.within == np.allclose(actual_f64, reference_f64, atol=atol, rtol=rtol)
    assert difference.worst == np.abs(actual_f64 - reference_f64).max()


def test_index_is_the_element_that_exceeds_the_tolerance_most() -> None:
    reference = np.array([[1000.0, 0.0]])
    difference = compare(reference, np.array([[1000.5, 0.1]]), atol=0.0, rtol=1e-3)
    assert not difference.within
    assert difference.index == (0, 1)
    assert difference.worst == 0.5
    assert difference.detail == "0.1 at [0, 1], expected 0.0"


def test_the_slices_of_a_large_array_are_compared_as_one() -> None:
    reference = np.zeros((3, 700_000), np.float32)
    actual = reference.copy()
    actual[0, 5], actual[1, 650_000], actual[2, 1] = 0.25, 2, -1
    difference = compare(reference, actual, atol=0.5, rtol=0)
    assert (difference.within, difference.worst, difference.index) == (False, 2.0, (1, 650_000))
    assert compare(reference, actual, atol=2, rtol=0).within
    assert not compare(reference, actual, atol=2, rtol=0, limit=np.array([[2.0], [2.0], [0.5]])).within
    assert relative_error(np.ones_like(reference), 1 + actual) == 2
    pixels = np.zeros((3, 700_000), np.uint8)
    for num_edges, within in ((2100, True), (2101, False)):
        changed = pixels.copy()
        changed.reshape(-1)[:num_edges] = 1
        assert compare(pixels, changed, atol=0, rtol=0).within is within


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_agree(value: float) -> None:
    broken = np.array([0.0, value])
    for reference, actual in ((broken, broken), (broken, np.zeros(2)), (np.zeros(2), broken)):
        difference = compare(reference, actual, atol=1e9, rtol=1e9)
        assert not difference.within
        assert difference.worst == math.inf
        assert difference.index == (1,)


def test_different_shapes_and_kinds_are_infinitely_far_apart() -> None:
    assert compare(np.zeros((2, 3)), np.zeros((3, 2)), atol=1, rtol=1).detail == "shape [3, 2], expected [2, 3]"
    difference = compare(np.zeros(2, np.uint8), np.zeros(2), atol=1, rtol=1)
    assert (difference.within, difference.worst) == (False, math.inf)


@pytest.mark.parametrize(
    ("edges", "size", "within"), [(1, 16, True), (2, 16, False), (3, 3000, True), (4, 3000, False)]
)
def test_one_pixel_in_a_thousand_may_differ_by_one(edges: int, size: int, within: bool) -> None:
    reference = np.full(size, 7, np.uint8)
    actual = reference.copy()
    actual[:edges] -= 1
    assert compare(reference, actual, atol=0, rtol=0).within is within


def test_pixels_that_differ_by_two_do_not_agree() -> None:
    assert not compare(np.array([255], np.uint8), np.array([253], np.uint8), atol=9, rtol=9).within


def test_empty_arrays_agree() -> None:
    assert compare(np.zeros((0, 3)), np.zeros((0, 3)), atol=0, rtol=0).within


@pytest.mark.parametrize("family", FAMILIES)
def test_replay_measures_every_output(family: str, bundles: dict[str, Bundle], sessions: dict[str, Session]) -> None:
    measured = replay_cases(sessions[family], dict(enumerate(bundles[family].golden)))
    assert set(measured) == {output.name for output in bundles[family].manifest.outputs}
    assert max(measured.values()) <= 1e-5


def test_replay_names_output_case_and_difference(write: Callable[..., Path]) -> None:
    first, second = golden_cases("image-classifier")
    logits = second.outputs["logits"].copy()
    logits[2, 1] += 0.25
    other = dataclasses.replace(second, outputs={**second.outputs, "logits": logits})
    bundle = open_bundle(write("image-classifier", files=bundle_files("image-classifier", golden=(first, other))))
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    with pytest.raises(
        BundleError, match=r"golden case 1 .*'logits' on CPUExecutionProvider is 0\.25 away.* at \[2, 1\]"
    ):
        replay_cases(session, dict(enumerate(bundle.golden)))


def test_a_limit_lowers_what_floats_are_allowed() -> None:
    reference, actual = np.array([100.0, 1.0]), np.array([100.005, 1.0])
    assert compare(reference, actual, atol=0, rtol=1e-4).within
    assert compare(reference, actual, atol=0, rtol=1e-4, limit=np.array(0.006)).within
    assert not compare(reference, actual, atol=0, rtol=1e-4, limit=np.array(0.004)).within
    assert not compare(reference, actual, atol=0, rtol=1e-6, limit=np.array(0.006)).within


def test_relative_errors_refer_to_the_largest_magnitude_of_the_row() -> None:
    reference = np.array([[1.0, -4.0], [0.5, 0.0]])
    assert relative_error(reference, reference + np.array([[0, 0.4], [0.1, 0]])) == pytest.approx(0.2)
    # Rows of zeros count as rows of small values.
    assert relative_error(np.zeros((1, 2)), np.full((1, 2), 1e-3)) == pytest.approx(0.1)


@pytest.mark.parametrize(("rounding", "is_refused"), [(None, False), (1e-6, True), (1e-5, False)])
def test_goldens_are_replayed_within_rounding_errors(
    rounding: float | None, is_refused: bool, bundles: dict[str, Bundle]
) -> None:
    """A logit near 6 is moved by 0.0003: half of the tolerance, and six times 8 * 1e-6 * 6."""
    bundle = bundles["image-classifier"]
    case = bundle.golden[1]
    logits = case.outputs["logits"] * np.float32(1 + 5e-5)
    moved = dataclasses.replace(case, outputs={**case.outputs, "logits": logits})
    session = Session(bundle.model, manifest=rounded(bundle, rounding), device="cpu")
    if not is_refused:
        assert replay_cases(session, {0: moved})["logits"] > 0
        return
    with pytest.raises(BundleError, match=r"rtol 0\.0001, at most .* by rounding\)"):
        replay_cases(session, {0: moved})


def rounded(bundle: Bundle, rounding: float | None) -> Manifest:
    tolerance = {
        name: tolerance.model_copy(update={"rounding": rounding})
        for name, tolerance in bundle.manifest.tolerance.items()
    }
    return bundle.manifest.model_copy(update={"tolerance": tolerance})


def test_on_a_gpu_the_tolerance_alone_counts(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    session = Session(bundle.model, manifest=rounded(bundle, 1e-6), device="cpu")
    logits = bundle.golden[0].outputs["logits"]
    assert rounding_limit(session, "logits", logits) == pytest.approx(8e-6 * np.abs(logits).max())
    session.device = "cuda"
    assert rounding_limit(session, "logits", logits) is None


def test_row_ratios_are_relative_to_limit_and_tolerance(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    session = Session(bundle.model, manifest=rounded(bundle, 1e-6), device="cpu")
    case = bundle.golden[1]
    assert (row_ratios(session, case) < 0.5).all()
    logits = case.outputs["logits"].copy()
    logits[1] += np.float32(10) * (1e-5 + 1e-4 * np.abs(logits[1]))
    moved = dataclasses.replace(case, outputs={"logits": logits})
    to_limit, to_tolerance = row_ratios(session, moved)
    assert to_tolerance[1] == pytest.approx(10, rel=0.01)
    assert to_limit[1] > to_tolerance[1]
    assert (to_limit[[0, 2]] < 0.5).all()
    with pytest.raises(ValueError, match="has shape"):
        row_ratios(session, dataclasses.replace(case, outputs={"logits": logits[:, :2]}))


def test_without_rounding_the_ratios_to_limit_and_tolerance_are_equal(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    case = bundle.golden[1]
    logits = case.outputs["logits"].copy()
    logits[1] += np.float32(10) * (1e-5 + 1e-4 * np.abs(logits[1]))
    to_limit, to_tolerance = row_ratios(session, dataclasses.replace(case, outputs={"logits": logits}))
    np.testing.assert_array_equal(to_limit, to_tolerance)
    assert to_tolerance[1] == pytest.approx(10, rel=0.01)
