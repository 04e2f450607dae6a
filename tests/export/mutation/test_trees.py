"""Mutants of a forest change one place each, and most of them change its answers."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest

from export.candidate import Candidate
from export.mutation.corpus import draw_graph_mutants
from export.mutation.mutant import SINGLE_WEIGHT
from export.mutation.operators import operator_mutants
from tests.export.conftest import Candidates
from tests.export.mutation.forests import NUM_FEATURES, forest, scores


@pytest.fixture(scope="module")
def trees(candidates: Candidates) -> Candidate:
    return replace(candidates("tiny-picture"), model=forest().SerializeToString(deterministic=True))


def test_branches_features_comparisons_and_classes_are_changed_once_each(trees: Candidate) -> None:
    node = onnx.load_from_string(trees.model).graph.node[0]
    changed = {"branches swapped": 2, "feature": 1, "comparison": 1, "class": 1}
    for mutant in operator_mutants(trees.model):
        other = onnx.load_from_string(mutant.apply(trees).model).graph.node[0]
        pairs = [
            pair
            for one, two in zip(node.attribute, other.attribute, strict=True)
            for values in ("ints", "strings")
            for pair in zip(getattr(one, values), getattr(two, values), strict=True)
        ]
        assert sum(one != two for one, two in pairs) == changed[mutant.kind], mutant


def test_a_forest_has_mutants_of_many_kinds_that_change_its_answers(trees: Candidate) -> None:
    mutants = draw_graph_mutants(trees, count=100, seed=0)
    kinds = Counter(mutant.kind for mutant in mutants)
    assert len(mutants) == 100
    assert kinds[SINGLE_WEIGHT] >= 30
    assert {"branches swapped", "feature", "comparison", "class", "scale", "shift", "sign", "noise"} <= set(kinds)
    x = np.random.default_rng(2).normal(size=(200, NUM_FEATURES)).astype(np.float32)
    expected = scores(trees.model, x)
    is_changed = [not np.allclose(scores(mutant.apply(trees).model, x), expected, atol=1e-6) for mutant in mutants]
    # A threshold of a leaf is never read, and a comparison differs at ties alone.
    assert sum(is_changed) > 60
