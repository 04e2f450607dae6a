"""Labels are ranked by unrounded probability."""

import numpy as np

from service.tasks.ranking import rank, top_labels

PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32)


def test_rank_sorts_by_probability_and_keeps_the_order_of_ties() -> None:
    first, second = rank(PROBABILITIES, ("a", "b", "c"), 2)
    assert [ranked["label"] for ranked in first] == ["b", "c"]
    assert [ranked["label"] for ranked in second] == ["a", "c"]


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
