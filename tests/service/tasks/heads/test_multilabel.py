"""Every label from the threshold on is in the answer; probabilities and threshold meet in float32."""

import numpy as np
import pytest

from service.engine.sessions.model import Model
from service.tasks.heads.multilabel import answers, choose, is_chosen
from service.tasks.readers.payload import Group

PROBABILITIES = np.array([[0.3, 0.9, 0.4, 0.1, 0.9], [0.1, 0.2, 0.3, 0.35, 0]], np.float32)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (None, [["sky", "ship", "sun"], []]),  # the model's is 0.4
        (0.3, [["sky", "ship", "sun", "sea"], ["sand", "sun"]]),
        (0.91, [[], []]),
        (0, [["sky", "ship", "sun", "sea", "sand"], ["sand", "sun", "sky", "sea", "ship"]]),
    ],
)
def test_labels_from_the_threshold_on_are_ranked(
    threshold: float | None, expected: list[list[str]], *, pair_models: dict[str, Model]
) -> None:
    manifest, fields = pair_models["tiny-scenes"].manifest, {"threshold": threshold}
    rows = answers(manifest, {"probabilities": PROBABILITIES}, Group({}, range(2)), fields)
    assert [[ranked["label"] for ranked in row["labels"]] for row in rows] == expected


def test_probabilities_are_those_of_the_model() -> None:
    [[first, second], _] = choose(PROBABILITIES, "abcde", 0.9)
    assert first == {"label": "b", "probability": float(np.float32(0.9))}
    assert second["label"] == "e"


def test_a_probability_equal_to_the_threshold_in_float32_reaches_it() -> None:
    for value in (0.1, 0.3, 0.7, 0.9):
        assert is_chosen(np.array([[value]], np.float32), value).all()
        assert not is_chosen(np.array([[np.nextafter(np.float32(value), np.float32(0))]], np.float32), value).any()
