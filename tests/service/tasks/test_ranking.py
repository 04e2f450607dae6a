"""Labels by probability, unrounded."""

import numpy as np

from service.tasks.ranking import best, rank

PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32)


def test_most_probable_first_and_ties_in_the_models_order() -> None:
    first, second = rank(PROBABILITIES, ("a", "b", "c"), 2)
    assert [best["label"] for best in first] == ["b", "c"]
    assert [best["label"] for best in second] == ["a", "c"]


def test_probabilities_are_the_very_float32() -> None:
    [[best], _] = rank(PROBABILITIES, ("a", "b", "c"), 1)
    assert best["probability"] == float(np.float32(0.5))
    assert rank(PROBABILITIES, ("a", "b", "c"), 3)[0][1]["probability"] == float(np.float32(0.3)) != 0.3


def test_no_more_labels_than_there_are() -> None:
    assert len(rank(PROBABILITIES, ("a", "b", "c"), 99)[0]) == 3


def test_the_best_is_the_first_of_the_ranking() -> None:
    order, probabilities = best(PROBABILITIES, 1)
    assert order.tolist() == [[1], [0]]
    assert probabilities.dtype == np.float32
    assert probabilities.tolist() == best(PROBABILITIES, 3)[1][:, :1].tolist()
