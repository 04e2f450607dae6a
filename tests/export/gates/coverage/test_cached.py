"""A language model's graph that differs at one prompt length, past length, cache size or batch size is refused."""

import pytest

from export.errors import ExportError
from export.gates.coverage.cached import CachedRows, check_cached
from service.engine.generation.kv_cache import cache_capacity
from tests.export.conftest import Candidates
from tests.export.edits import Condition, any_element, size_is, triggered
from tests.export.gates.coverage.test_sizes import passes_the_grid


@pytest.mark.parametrize("name", ["tiny-language", "tiny-prenorm"])
def test_an_honest_graph_passes(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    coverages = {coverage.name: coverage for coverage in check_cached(candidate)}
    context = candidate.manifest.limits.max_steps
    assert context == cache_capacity(1, context or 0) == 24
    assert coverages["every prompt length at every capacity"].num_batches == 2 * 24
    assert coverages["every past length at every capacity"].num_items >= 2 * 24
    assert coverages["every size of the past"].num_batches == 24
    for coverage in coverages.values():
        assert set(coverage.max_differences) == set(candidate.manifest.tolerance)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (
            size_is("ids", 1, 17),
            "every prompt length at every capacity, 17 tokens in a batch of 1 with 24 slots: after 0",
        ),
        (
            any_element("past_lengths", "Equal", 13, "int64"),
            "every past length at every capacity, 1 tokens .* 24 slots",
        ),
        (size_is("past_key_0", 2, 19), "every size of the past, .* with 19 slots: after"),
        (size_is("ids", 0, 48), "every batch size, 1 tokens in a batch of 48 with 24 slots"),
        (size_is("ids", 0, 257), "every batch size, 1 tokens in a batch of 257 "),
    ],
)
def test_a_graph_that_differs_at_one_size_is_refused(
    candidates: Candidates, condition: Condition, expected: str
) -> None:
    mutant = triggered(candidates("tiny-prenorm"), condition)
    # The tiny context is so short that the grid has every past length.
    assert "past" in expected or passes_the_grid(mutant)
    with pytest.raises(ExportError, match=rf"parity: output 'logits' differs by 0.5 .* on {expected}"):
        check_cached(mutant)


def test_a_value_of_the_cache_that_differs_is_refused(candidates: Candidates) -> None:
    mutant = triggered(candidates("tiny-prenorm"), size_is("ids", 1, 11), output="new_value_0")
    with pytest.raises(ExportError, match=r"output 'new_value_0' differs by 0.5 .* 11 tokens"):
        check_cached(mutant)


def test_slots_are_counted_in_bytes(candidates: Candidates) -> None:
    # 1 layer with 2 heads of 8 values; keys and values of 4 bytes each.
    assert CachedRows(candidates("tiny-prenorm")).slot_bytes() == 2 * 2 * 8 * 4
