"""Each kind changes one tensor, in the place and by the size that it names."""

import numpy as np
import pytest

from export.candidate import Candidate
from export.mutation.mutant import SINGLE_WEIGHT
from export.mutation.stored import stored_values
from export.mutation.weights import CHANGES, draw_weight_mutant, suitable_values
from tests.export.conftest import Candidates


def changed_tensors(candidate: Candidate, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, str]:
    """The only tensor that differs, before and after, and the mutant's text."""
    mutant = draw_weight_mutant(suitable_values(candidate)[kind], kind, np.random.default_rng(seed))
    assert mutant is not None
    changed = mutant.apply(candidate)
    pairs = zip(stored_values(candidate), stored_values(changed), strict=True)
    [(before, after)] = [
        (one.values, other.values) for one, other in pairs if not np.array_equal(one.values, other.values)
    ]
    assert len(changed.model) == len(candidate.model)
    # The end of a slice is too large for a float.
    distance = np.abs(after - before if before.dtype.kind == "i" else after.astype(np.float64) - before)
    assert mutant.size == pytest.approx(distance[np.isfinite(distance)].max(initial=0))
    return before, after, str(mutant)


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-lstm", "tiny-text", "tiny-prenorm", "tiny-gan"])
def test_every_applicable_kind_changes_one_tensor(name: str, candidates: Candidates) -> None:
    candidate = candidates(name)
    kinds = list(suitable_values(candidate))
    assert SINGLE_WEIGHT in kinds
    assert len(kinds) >= 12
    for kind in kinds:
        changed_tensors(candidate, kind, seed=3)


@pytest.mark.parametrize("seed", range(6))
def test_a_single_weight_is_one_value(seed: int, candidates: Candidates) -> None:
    before, after, _ = changed_tensors(candidates("tiny-picture"), SINGLE_WEIGHT, seed)
    assert (before != after).sum() == 1


def test_rows_and_columns_are_those_of_a_matrix(candidates: Candidates) -> None:
    before, after, text = changed_tensors(candidates("tiny-lstm"), "row")
    rows = (before != after).reshape(-1, before.shape[-1]).any(1)
    assert rows.sum() == 1
    assert text.partition(", row ")[2].split()[0] == str(int(rows.argmax()))
    before, after, _ = changed_tensors(candidates("tiny-lstm"), "column")
    assert (before != after).reshape(-1, before.shape[-1]).any(0).sum() == 1


def test_swapped_rows_hold_the_same_values(candidates: Candidates) -> None:
    for kind in ("rows swapped", "columns swapped", "gates", "rows shifted"):
        before, after, _ = changed_tensors(candidates("tiny-lstm"), kind)
        np.testing.assert_array_equal(np.sort(before, axis=None), np.sort(after, axis=None))


def test_signs_scales_and_shifts_change_the_whole_tensor(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    before, after, _ = changed_tensors(candidate, "sign")
    np.testing.assert_array_equal(after, -before)
    before, after, _ = changed_tensors(candidate, "scale")
    assert np.ptp((after / before)[before != 0]) < 1e-6
    before, after, _ = changed_tensors(candidate, "shift")
    assert np.ptp(after - before) < 1e-5


def test_counts_are_off_by_one(candidates: Candidates) -> None:
    before, after, text = changed_tensors(candidates("tiny-prenorm"), "count")
    assert np.abs(after - before).sum() == 1
    assert text.endswith(("+1 by 1", "-1 by 1"))


def test_no_values_no_mutant() -> None:
    assert "gates" in CHANGES
    assert draw_weight_mutant([], "gates", np.random.default_rng(0)) is None
