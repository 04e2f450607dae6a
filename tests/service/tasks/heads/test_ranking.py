"""Labels are ranked by unrounded probability."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from service.tasks.heads.ranking import TopK, rank, top_labels

PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32)


def test_rank_sorts_by_probability_and_keeps_the_order_of_ties() -> None:
    first, second = rank(PROBABILITIES, ("a", "b", "c"), 2)
    assert [ranked["label"] for ranked in first] == ["b", "c"]
    assert [ranked["label"] for ranked in second] == ["a", "c"]


def test_many_ties_are_in_the_order_of_the_labels() -> None:
    labels = [str(i) for i in range(100)]
    [ranked] = rank(np.array([[0.01, 0.005] * 50], np.float32), labels, 100)
    assert [entry["label"] for entry in ranked] == [*labels[::2], *labels[1::2]]


@pytest.mark.parametrize(("top_k", "is_valid"), [(0, False), (1, True), (1000, True), (1001, False)])
def test_top_k_is_1_to_1000(top_k: int, is_valid: bool) -> None:
    adapter = TypeAdapter(TopK)
    if is_valid:
        assert adapter.validate_python(top_k) == top_k
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(top_k)


def test_rank_keeps_the_exact_float32_probabilities() -> None:
    [[ranked], _] = rank(PROBABILITIES, ("a", "b", "c"), 1)
    assert ranked["probability"] == float(np.float32(0.5))
    assert rank(PROBABILITIES, ("a", "b", "c"), 3)[0][1]["probability"] == float(np.float32(0.3)) != 0.3


def test_rank_returns_at_most_all_labels() -> None:
    assert len(rank(PROBABILITIES, ("a", "b", "c"), 99)[0]) == 3


def test_top_labels_of_one_equal_the_first_of_many() -> None:
    order, probabilities = top_labels(PROBABILITIES, 1)
    assert order.tolist() == [[1], [0]]
    assert probabilities.dtype == np.float32
    assert probabilities.tolist() == top_labels(PROBABILITIES, 3)[1][:, :1].tolist()
