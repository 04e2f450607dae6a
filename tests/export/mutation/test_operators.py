"""The edits of nodes are those that an operator admits, and each makes another file."""

from collections import Counter

import onnx
import pytest

from export.mutation.operators import operator_mutants
from tests.export.conftest import Candidates


def locations(candidates: Candidates, name: str) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for mutant in operator_mutants(candidates(name).model):
        kinds.setdefault(mutant.kind, []).append(mutant.location)
    return kinds


@pytest.mark.parametrize("name", ["tiny-colour", "tiny-tagger", "tiny-text", "tiny-language", "tiny-gan"])
def test_every_mutant_is_another_file(name: str, candidates: Candidates) -> None:
    candidate = candidates(name)
    original = onnx.load_from_string(candidate.model).SerializeToString(deterministic=True)
    models = [mutant.apply(candidate).model for mutant in operator_mutants(candidate.model)]
    assert len(models) > 10
    assert original not in models


def test_windows_of_a_convolution_are_shifted(candidates: Candidates) -> None:
    kinds = locations(candidates, "tiny-picture")
    places = [place for place in kinds["attribute"] if place.startswith("Conv")]
    assert Counter(place.partition(", ")[2] for place in places) == {"pads shifted": 2, "strides": 1, "dilations 2": 1}
    assert any(place.startswith("MaxPool") and place.endswith("as AveragePool") for place in kinds["operator"])


def test_recurrent_layers_lose_lengths_and_confuse_states(candidates: Candidates) -> None:
    kinds = locations(candidates, "tiny-tagger")
    assert len(kinds["lengths ignored"]) == 1
    assert any("initial states" in place for place in kinds["inputs swapped"])
    assert any("last two" in place for place in kinds["outputs swapped"])


def test_masks_are_dropped_and_comparisons_moved(candidates: Candidates) -> None:
    kinds = locations(candidates, "tiny-prenorm")
    assert len(kinds["mask dropped"]) >= 4
    assert any("as LessOrEqual" in place for place in kinds["operator"])
    assert any("as Less" in place for place in kinds["operator"])


def test_layers_of_the_same_shape_are_confused(candidates: Candidates) -> None:
    kinds = locations(candidates, "tiny-language")
    assert any("layers.1" in place and "layers.0" in place for place in kinds["tensors confused"])
