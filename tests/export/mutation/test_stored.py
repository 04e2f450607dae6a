"""What a graph stores: tensors, and the numbers in attributes of trees."""

from dataclasses import replace

import numpy as np
import pytest

from export.candidate import Candidate
from export.mutation.stored import stored_values
from tests.export.conftest import Candidates
from tests.export.mutation.forests import LEAVES, NUM_FEATURES, NUM_TREES, PARENTS, forest, scores


@pytest.fixture(scope="module")
def trees(candidates: Candidates) -> Candidate:
    return replace(candidates("tiny-picture"), model=forest().SerializeToString(deterministic=True))


def test_thresholds_and_leaves_are_values_and_numbers_of_nodes_are_not(trees: Candidate) -> None:
    names = {stored.name: stored.values.shape for stored in stored_values(trees)}
    nodes = NUM_TREES * (len(PARENTS) + len(LEAVES))
    assert names == {
        "TreeEnsembleClassifier forest.nodes_values": (nodes,),
        "TreeEnsembleClassifier forest.class_weights": (NUM_TREES * len(LEAVES),),
    }


def test_other_values_of_an_attribute_are_those_that_the_graph_computes_with(trees: Candidate) -> None:
    [weights] = [stored for stored in stored_values(trees) if stored.name.endswith("class_weights")]
    x = np.random.default_rng(1).normal(size=(20, NUM_FEATURES)).astype(np.float32)
    doubled = weights.put(trees, 2 * weights.values)
    np.testing.assert_allclose(scores(doubled.model, x), 2 * scores(trees.model, x), rtol=1e-6)


def test_a_tensor_is_replaced_in_the_bytes_of_the_file(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    stored = [one for one in stored_values(candidate) if one.is_weights]
    assert len(stored) > 3
    changed = stored[0].put(candidate, -stored[0].values)
    assert len(changed.model) == len(candidate.model)
    [again] = [one for one in stored_values(changed) if one.name == stored[0].name]
    np.testing.assert_array_equal(again.values, -stored[0].values)
