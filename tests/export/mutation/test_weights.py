"""Each kind changes one tensor, in the place and by the size that it names."""

import numpy as np
import pytest

from export.candidate import Candidate
from export.mutation.mutant import SINGLE_WEIGHT
from export.mutation.weights import CHANGES, draw_weight_mutant, patchable_tensors, suitable_tensors
from service.engine.verification.initializers import tensor_values
from tests.export.conftest import Candidates


def changed_tensors(candidate: Candidate, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, str]:
    """The only tensor that differs, before and after, and the mutant's text."""
    tensors = patchable_tensors(candidate.model)
    mutant = draw_weight_mutant(candidate, suitable_tensors(candidate)[kind], kind, np.random.default_rng(seed))
    assert mutant is not None
    model = mutant.apply(candidate).model
    pairs = [(tensor_values(candidate.model, tensor), tensor_values(model, tensor)) for tensor in tensors]
    [(before, after)] = [pair for pair in pairs if not np.array_equal(*pair)]
    assert len(model) == len(candidate.model)
    # The end of a slice is too large for a float.
    distance = np.abs(after - before if before.dtype.kind == "i" else after.astype(np.float64) - before)
    assert mutant.size == pytest.approx(distance[np.isfinite(distance)].max(initial=0))
    return before, after, str(mutant)


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-lstm", "tiny-text", "tiny-prenorm", "tiny-gan"])
def test_every_applicable_kind_changes_one_tensor(name: str, candidates: Candidates) -> None:
    candidate = candidates(name)
    kinds = list(suitable_tensors(candidate))
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


def test_no_tensor_no_mutant(candidates: Candidates) -> None:
    assert "gates" in CHANGES
    assert draw_weight_mutant(candidates("tiny-picture"), [], "gates", np.random.default_rng(0)) is None
