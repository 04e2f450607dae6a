"""Targets are what the head answers, or the file is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.sources.examples import Examples
from export.sources.targets import read_targets
from export.spec import parse_spec
from training.recipe import IGNORE_INDEX


def targets(head: dict[str, Any], *groups: Any) -> Any:
    spec = parse_spec({"reader": {"kind": "tensors"}, "head": head}, Path("spec.toml"))
    return read_targets(spec.head, Examples(path=Path("e.npz"), groups=(), targets=tuple(map(np.array, groups))))


AB = {"kind": "labels", "labels": ["a", "b"]}


def test_labels_are_names_or_indices() -> None:
    assert targets(AB, [0, 1], [1, 1]).tolist() == [0, 1, 1, 1]
    assert targets(AB, [["b"], ["a"]]).tolist() == [1, 0]
    assert targets(AB, [0.0, 1.0]).tolist() == [0, 1]
    assert targets(AB).size == 0


def test_values_and_labels_of_their_own_have_a_column_each() -> None:
    assert targets({"kind": "values", "names": ["x"]}, [1.5, 2.5]).tolist() == [[1.5], [2.5]]
    assert targets({"kind": "multilabel", "labels": 2}, [[True, False]]).tolist() == [[1, 0]]
    assert targets({"kind": "embedding"}, [1, 2]).size == 0


def test_labels_of_steps_are_padded() -> None:
    head = {"kind": "token-labels", "labels": 3}
    assert targets(head, [[0, 1]], [[2, 1, IGNORE_INDEX]]).tolist() == [
        [0, 1, IGNORE_INDEX],
        [2, 1, IGNORE_INDEX],
    ]


@pytest.mark.parametrize(
    ("head", "groups", "sentence"),
    [
        (AB, [[0, 2]], "a target is 2, the labels are 0 to 1"),
        (AB, [[[0, 1], [1, 0]]], r"targets have the axes \[2, 2\], expected \[items\]"),
        (AB, [["a", "c"]], "the target 'c' is none of the labels a, b"),
        ({"kind": "values", "names": ["x"]}, [[[1.0, 2.0]]], r"targets have the axes \[1, 2\], expected \[items, 1\]"),
        (AB, [[0.0, 0.9]], "a target is 0.9, expected whole numbers"),
        (AB, [[0.0, np.nan]], "target 1 is not finite"),
        (AB, [[b"a", b"b"]], r"targets are \|S1, expected numbers"),
        ({"kind": "multilabel", "labels": 2}, [[[0.2, 1.0]]], "a target is 0.2, expected 1 for each label of the item"),
        ({"kind": "multilabel", "labels": 2}, [[[0, 2]]], "a target is 2, expected 1 for each label"),
        ({"kind": "values", "names": ["x"]}, [["dear"]], "targets are <U4, expected numbers"),
        ({"kind": "values", "names": ["x"]}, [[1.0, np.inf]], "target 1 is not finite"),
        ({"kind": "token-labels", "labels": 3}, [[[0.5, 1.0]]], "a target is 0.5, expected whole numbers"),
        ({"kind": "token-labels", "labels": 3}, [[1, 2]], r"targets have the axes \[2\], expected \[items, steps\]"),
    ],
)
def test_targets_that_the_head_cannot_have(head: dict[str, Any], groups: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        targets(head, *groups)
