"""A run is never cut short; of a model from elsewhere, as many rows are computed as the work allows."""

from dataclasses import replace

import pytest
from torch import nn

from export.gates.inputs import effort
from export.gates.inputs.effort import MIN_ROWS, UNBOUNDED, max_rows, num_parameters, row_elements, sampled
from service.contract.tensors import float32
from tests.export.conftest import Candidates
from tests.export.tiny_sources import make_candidate


def test_a_run_has_no_bound(candidates: Candidates) -> None:
    assert max_rows(candidates("tiny-lstm"), {}) == UNBOUNDED


def test_a_larger_model_and_larger_items_have_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = make_candidate("tiny-regression")
    assert num_parameters(candidate) == 5 * 12 + 12 + 12 * 2 + 2
    monkeypatch.setattr(effort, "WORK", 2 * 98 * 500)
    assert max_rows(candidate, {}) == 500
    large = replace(candidate, source=replace(candidate.source, module=nn.Linear(98, 2)))
    assert max_rows(large, {}) == 500 * 98 // 198
    assert max_rows(candidate, {}, steps=2) == 250
    assert max_rows(candidate, {}, steps=1000) == MIN_ROWS


def test_a_graph_from_a_file_counts_its_stored_numbers() -> None:
    candidate = make_candidate("tiny-detector")
    assert num_parameters(candidate) >= 6 * 27 + 6 + 6 * 8 + 8 + 6 * 2 + 2
    assert row_elements(float32("x", "batch", "height", 3), {"height": 5}) == 15


def test_a_sample_is_spread_evenly_and_keeps_both_ends() -> None:
    assert list(sampled(lambda: iter(range(101)), 5)) == [0, 25, 50, 75, 100]
    assert list(sampled(lambda: iter(range(3)), 5)) == [0, 1, 2]
    assert list(sampled(lambda: iter(range(3)), UNBOUNDED)) == [0, 1, 2]
