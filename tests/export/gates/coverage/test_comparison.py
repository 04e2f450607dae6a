"""A difference is refused unless float32 rounding explains it, and the refusal names output, row and values."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from export.errors import ExportError
from export.gates.cases import Array, Case
from export.gates.coverage.comparison import ERROR_RATIO, EXTREME_SHARE, NOISE_RATIO, NOISE_SCALE, Comparison
from service.manifest import Manifest
from tests.export.conftest import Candidates

LOGITS = np.array([[3.0, -2.0, 0.5, 1.0], [0.0, 1.0, 2.0, 3.0]], np.float32)
CASE = Case(name="two", inputs={"images": np.zeros((2, 8, 8), np.uint8)}, rows=("the first", "the second"))
# atol 1e-5, rtol 1e-4: the tolerance of the element [0, 0].
ALLOWED = 1e-5 + 3e-4


@pytest.fixture
def manifest(candidates: Candidates) -> Manifest:
    return candidates("tiny-picture").manifest


def moved(by: float, position: tuple[int, int] = (0, 0)) -> dict[str, Array]:
    logits = LOGITS.astype(np.float64)
    logits[position] += by
    return {"logits": logits}


def test_batches_are_counted_and_the_largest_difference_is_recorded(manifest: Manifest) -> None:
    comparison = Comparison(manifest, "some")
    for by in (1e-6, 3e-5, 1e-5):
        comparison.add(CASE, {"logits": LOGITS}, moved(by))
    result = comparison.result()
    assert (result.name, result.num_batches, result.num_items, result.num_excused) == ("some", 3, 6, 0)
    assert result.max_differences["logits"] == pytest.approx(3e-5, rel=1e-2)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (moved(1e-2, (1, 2)), "parity: output 'logits' differs by 0.01 .* on some, two: the second: 2.01 at"),
        (moved(np.nan), "output 'logits' differs by inf .* on some, two: the first: nan at"),
        ({"logits": LOGITS[:1]}, "differs by inf .*shape"),
    ],
)
@pytest.mark.parametrize("has_exact", [False, True])
def test_a_difference_is_refused(manifest: Manifest, actual: Any, expected: str, has_exact: bool) -> None:
    comparison = Comparison(manifest, "some", exact=(lambda case: moved(0)) if has_exact else None)
    with pytest.raises(ExportError, match=expected):
        comparison.add(CASE, {"logits": LOGITS}, actual)


def test_the_gate_is_named(manifest: Manifest) -> None:
    with pytest.raises(ExportError, match="metric: output"):
        Comparison(manifest, "some", gate="metric").add(CASE, {"logits": LOGITS}, moved(1))


@pytest.mark.parametrize(("share", "is_accepted"), [(ERROR_RATIO * 0.9, True), (ERROR_RATIO * 1.2, False)])
def test_a_row_may_be_as_far_from_float64_as_pytorch_is(manifest: Manifest, share: float, is_accepted: bool) -> None:
    """PyTorch itself is a whole tolerance away from float64, so rounding matters in this row."""
    comparison = Comparison(manifest, "some", exact=lambda case: {"logits": LOGITS.astype(np.float64)})
    expected, actual = moved(ALLOWED), moved(share * ALLOWED)
    if is_accepted:
        comparison.add(CASE, expected, actual)
        assert comparison.result().num_excused == 1
        return
    with pytest.raises(ExportError, match="differs"):
        comparison.add(CASE, expected, actual)


@pytest.mark.parametrize(("share", "is_accepted"), [(NOISE_RATIO * 1.9, True), (NOISE_RATIO * 2.5, False)])
def test_a_row_may_move_as_noise_in_its_inputs_moves_it(manifest: Manifest, share: float, is_accepted: bool) -> None:
    """Noise of 1e-6 in an input of 1 moves the logits by two tolerances."""
    case = replace(CASE, inputs={"series": np.ones((2, 1, 1), np.float32)})
    slope = 2 * ALLOWED / NOISE_SCALE

    def exact(case: Case) -> dict[str, Array]:
        noise = np.abs(case.inputs["series"].astype(np.float64) - 1).max()
        # The largest of two values of noise, in the units of NOISE_SCALE.
        return moved(slope * NOISE_SCALE if noise else 0)

    comparison = Comparison(manifest, "some", exact=exact)
    if is_accepted:
        comparison.add(case, {"logits": LOGITS}, moved(share * ALLOWED))
        return
    with pytest.raises(ExportError, match="differs"):
        comparison.add(case, {"logits": LOGITS}, moved(share * ALLOWED))


def test_a_row_without_rounding_is_not_excused_by_another_row(manifest: Manifest) -> None:
    comparison = Comparison(manifest, "some", exact=lambda case: {"logits": LOGITS.astype(np.float64)})
    with pytest.raises(ExportError, match="the second"):
        comparison.add(CASE, moved(ALLOWED), moved(1e-2, (1, 3)))


def test_extreme_rows_have_more_tolerance(manifest: Manifest) -> None:
    extreme = replace(CASE, is_extreme=True)
    for case, share, is_accepted in (
        (extreme, EXTREME_SHARE * 0.9, True),
        (extreme, EXTREME_SHARE * 1.1, False),
        (CASE, EXTREME_SHARE * 0.9, False),
    ):
        comparison = Comparison(manifest, "some", exact=lambda case: {"logits": LOGITS.astype(np.float64)})
        if is_accepted:
            comparison.add(case, {"logits": LOGITS}, moved(share * ALLOWED))
            continue
        with pytest.raises(ExportError, match="differs"):
            comparison.add(case, {"logits": LOGITS}, moved(share * ALLOWED))


def test_pixels_are_never_excused(candidates: Candidates) -> None:
    images = np.zeros((1, 8, 8), np.uint8)
    comparison = Comparison(candidates("tiny-gan").manifest, "some", exact=lambda case: {"images": images})
    with pytest.raises(ExportError, match="output 'images' differs by 2"):
        comparison.add(replace(CASE, is_extreme=True), {"images": images}, {"images": images + np.uint8(2)})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_without_a_finite_answer_is_told_so(manifest: Manifest, value: float) -> None:
    expected = {"logits": np.array([[0.0, 1.0], [value, 1.0]], np.float32)}
    case = Case(name="two", inputs={}, rows=("ones", "zeros"))
    with pytest.raises(ExportError, match=rf"output 'logits' of the model itself is {value} on tiny, two: zeros: a"):
        Comparison(manifest, "tiny").add(case, expected, expected)
