"""The edits of nodes are those that an operator admits, and each makes another file."""

from collections import Counter
from dataclasses import dataclass

import onnx
import pytest
from onnx import helper

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


@pytest.mark.parametrize("num_axes", [1, 2, 3])
def test_windows_of_any_number_of_axes_are_shifted(num_axes: int) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3] * num_axes, pads=[1] * 2 * num_axes)
    values = [
        {attribute.name: list(attribute.ints) for attribute in edited.attribute}
        for edited in edits_of(conv, "attribute")
    ]
    zeros = [1] * (num_axes - 1)
    assert [value["pads"] for value in values[:2]] == [[2, *zeros, 0, *zeros], [*zeros, 0, *zeros, 2]]
    assert values[2]["strides"] == [*zeros, 2]
    assert values[3]["dilations"] == [2] * num_axes


@pytest.mark.parametrize("names", [["x", "w", "r"], ["x", "w", "r", "b", "", "", ""]])
def test_a_recurrent_layer_without_lengths_and_states_loses_none(names: list[str]) -> None:
    lstm = helper.make_node("LSTM", names, ["y", "y_h", "y_c"], hidden_size=4)
    for kind in ("attribute", "inputs swapped", "outputs swapped"):
        assert len(edits_of(lstm, kind)) >= (kind != "inputs swapped")
    assert not edits_of(lstm, "lengths ignored") + edits_of(lstm, "input dropped")


def edits_of(node: onnx.NodeProto, kind: str) -> list[onnx.NodeProto]:
    """The node after each edit of this kind."""
    graph = helper.make_graph([node], "graph", [], [])
    model = helper.make_model(graph).SerializeToString()
    mutants = [mutant for mutant in operator_mutants(model) if mutant.kind == kind]
    return [onnx.load_from_string(mutant.apply(Model(model=model)).model).graph.node[0] for mutant in mutants]


@dataclass(frozen=True)
class Model:
    """What a mutant reads and replaces of a candidate."""

    model: bytes


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
