"""An honest graph is accounted for in full; a graph with one changed constant is refused, whichever constant it is."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.weights import gate
from export.gates.weights.gate import check_weights
from export.gates.weights.source import TracedModule, read_source
from export.source import Source
from export.sources.run import run_source
from tests.export.conftest import Candidates, Runs, make_candidate
from tests.export.gates.weights.test_source import Idle

Change = Callable[[onnx.GraphProto], None]


TRACED: dict[str, TracedModule] = {}


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace each run once for all tests."""

    def read(source: Source) -> TracedModule:
        if source.name not in TRACED:
            TRACED[source.name] = read_source(source)
        return TRACED[source.name]

    monkeypatch.setattr(gate, "read_source", read)


def edited(candidate: Candidate, change: Change) -> Candidate:
    model = onnx.load_from_string(candidate.model)
    change(model.graph)
    return replace(candidate, model=model.SerializeToString())


def refusal(candidate: Candidate, change: Change) -> str:
    with pytest.raises(ExportError, match="weights: ") as refused:
        check_weights(edited(candidate, change))
    return str(refused.value)


def arrays(candidate: Candidate) -> list[tuple[int, str, Any]]:
    """Position, name and content of each float initializer."""
    graph = onnx.load_from_string(candidate.model).graph
    contents = [(i, one.name, numpy_helper.to_array(one).copy()) for i, one in enumerate(graph.initializer)]
    return [(i, name, array) for i, name, array in contents if array.dtype.kind == "f"]


def set_array(position: int, array: Any) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        tensor = graph.initializer[position]
        tensor.CopyFrom(numpy_helper.from_array(np.array(array, order="C"), tensor.name))

    return change


def test_every_initializer_of_an_honest_graph_is_accounted_for(candidate: Candidate) -> None:
    weights = check_weights(candidate)
    assert weights.num_initializers == len(onnx.load_from_string(candidate.model).graph.initializer)
    assert weights.max_rounding < 2e-7
    assert ("folded" in weights.transformations) == (
        candidate.manifest.name in {"tiny-picture", "tiny-colour", "tiny-gan"}
    )


def test_the_last_bit_of_any_constant_counts(candidate: Candidate, read_once: None) -> None:
    rng = np.random.default_rng(0)
    for position, name, array in arrays(candidate):
        changed = array.reshape(-1)
        element = rng.integers(changed.size)
        changed[element] = np.nextafter(changed[element], np.float32(1e9))
        message = refusal(candidate, set_array(position, changed.reshape(array.shape)))
        assert f"initializer {name!r} {array.shape}, read by node" in message
        assert "is no constant of the model: the " in message


def test_no_two_constants_of_a_shape_can_be_exchanged(candidate: Candidate, read_once: None) -> None:
    for (i, _, a), (j, _, b) in combinations(arrays(candidate), 2):
        if a.shape == b.shape and not np.array_equal(a, b):

            def change(graph: onnx.GraphProto, i: int = i, j: int = j, a: Any = a, b: Any = b) -> None:
                set_array(i, b)(graph)
                set_array(j, a)(graph)

            refusal(candidate, change)


def test_no_two_rows_can_be_exchanged(candidate: Candidate, read_once: None) -> None:
    for position, _, array in arrays(candidate):
        if array.ndim and len(array) > 1 and not np.array_equal(array[0], array[1]):
            rows = array[[1, 0, *range(2, len(array))]]
            refusal(candidate, set_array(position, rows))


def drop_bias(graph: onnx.GraphProto) -> None:
    gemm = next(node for node in graph.node if node.op_type == "Gemm")
    tensor = next(one for one in graph.initializer if one.name == gemm.input[2])
    graph.initializer.remove(tensor)
    del gemm.input[2]


def drop_unread(graph: onnx.GraphProto) -> None:
    del next(node for node in graph.node if node.op_type == "Gemm").input[2]


def append_offset(graph: onnx.GraphProto) -> None:
    """Add nothing to the logits."""
    graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.float32), "offset"))
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[0] = "before"
    graph.node.append(helper.make_node("Add", ["before", "offset"], ["logits"]))


def append_constant_node(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Constant", [], ["factor"], value_float=1.0))
    graph.node.append(helper.make_node("Mul", ["logits", "factor"], ["scaled"]))


def read_twice(graph: onnx.GraphProto) -> None:
    name = next(node for node in graph.node if node.op_type == "Gemm").input[2]
    graph.node.append(helper.make_node("Add", ["logits", name], ["shifted"]))


def set_scalar(old: float, new: float) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        contents = [numpy_helper.to_array(one) for one in graph.initializer]
        position = next(i for i, one in enumerate(contents) if one.size == 1 and one.item() == old)
        set_array(position, np.full_like(contents[position], new))(graph)

    return change


def set_size(old: int, new: int) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        for position, one in enumerate(graph.initializer):
            array = numpy_helper.to_array(one)
            if array.dtype == np.int64 and old in array:
                return set_array(position, np.where(array == old, new, array))(graph)
        raise AssertionError(old)

    return change


def set_attribute(operator: str, name: str, value: Any) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.op_type == operator)
        others = [one for one in node.attribute if one.name != name]
        del node.attribute[:]
        node.attribute.extend([*others, *([] if value is None else [helper.make_attribute(name, value)])])

    return change


REFUSED: dict[str, tuple[str, Change, str]] = {
    "255 became 254": ("tiny-picture", set_scalar(255, 254), "the nearest is the constant 255, which differs by 1"),
    "a scale became another": ("tiny-gan", set_scalar(127.5, 128), "is no constant of the model"),
    "a bound became another": ("tiny-gan", set_scalar(255, 1), "is no constant of the model"),
    "a mask became finite": ("tiny-text", set_scalar(-np.inf, -1e9), "is no constant of the model"),
    "the root of the head size": ("tiny-language", set_scalar(np.float32(8**0.5), 3), "is no constant of the model"),
    "the last position": ("tiny-prenorm", set_size(23, 22), "holds 22, which is no size, axis or bound of"),
    "the size of a picture": ("tiny-gan", set_size(8, 32), "holds 32, which is no size"),
    "epsilon": ("tiny-prenorm", set_attribute("LayerNormalization", "epsilon", 1e-4), "attribute 'epsilon'"),
    "alpha": ("tiny-picture", set_attribute("Gemm", "alpha", 1.001), "attribute 'alpha'"),
    "the strides": ("tiny-picture", set_attribute("Conv", "strides", [2, 1]), "attribute 'strides' of node"),
    "the padding": ("tiny-picture", set_attribute("Conv", "pads", None), r"attribute 'pads' .* is \[0, 0, 0, 0\]"),
    "the pool": ("tiny-picture", set_attribute("MaxPool", "strides", [1, 1]), "attribute 'strides' of node"),
    "the direction": ("tiny-lstm", set_attribute("LSTM", "direction", "reverse"), "attribute 'direction' of node"),
    "an activation": ("tiny-rnn", set_attribute("RNN", "activations", ["Relu"]), "attribute 'activations' of node"),
    "a clip": ("tiny-rnn", set_attribute("RNN", "clip", 100.0), "attribute 'clip'"),
    "no bias": ("tiny-gan", drop_bias, "is absent from the graph"),
    "the last bias dropped": ("tiny-picture", drop_bias, r"'layers.6.bias' \(4,\) is absent from the graph"),
    "a bias that is not read": ("tiny-picture", drop_unread, r"'model.layers.6.bias' \(4,\) is read by no node"),
    "an offset of zeros": ("tiny-lstm", append_offset, r"initializer 'offset' \(4,\), read by node"),
    "a factor of one": ("tiny-lstm", append_constant_node, r"initializer 'factor' \(\), read by node"),
    "a bias read twice": ("tiny-lstm", read_twice, "which holds 'head.bias' .* where the model uses no more constants"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_with_another_constant_is_refused(name: str, candidates: Candidates, read_once: None) -> None:
    model, change, expected = REFUSED[name]
    with pytest.raises(ExportError, match=f"weights: .*{expected}"):
        check_weights(edited(candidates(model), change))


def test_weights_of_two_layers_cannot_be_exchanged_by_their_readers(candidates: Candidates, read_once: None) -> None:
    def change(graph: onnx.GraphProto) -> None:
        first, second = (node for node in graph.node if node.op_type == "RNN")
        first.input[2], second.input[2] = second.input[2], first.input[2]

    message = refusal(candidates("tiny-rnn"), change)
    assert (
        "which holds 'ragged.rnn.weight_hh_l1' (8, 8), where the model uses 'ragged.rnn.weight_hh_l0' (8, 8)" in message
    )


def test_a_weight_in_the_place_of_another_is_named(candidates: Candidates, read_once: None) -> None:
    def change(graph: onnx.GraphProto) -> None:
        first, second = (node for node in graph.node if node.op_type == "RNN")
        unread = {*first.input[2:4], *second.input[2:4]} - {*first.input[2:4]}
        second.input[2:4] = first.input[2:4]
        for tensor in [one for one in graph.initializer if one.name in unread]:
            graph.initializer.remove(tensor)

    message = refusal(candidates("tiny-rnn"), change)
    assert "'ragged.rnn.weight_hh_l1' (8, 8) is absent from the graph; where the model uses it, node" in message


STATES = [
    ("tiny-picture", "layers.0.mean"),
    ("tiny-picture", "layers.2.running_var"),
    ("tiny-picture", "layers.2.running_mean"),
    ("tiny-picture", "layers.2.bias"),
    ("tiny-lstm", "standardize.std"),
    ("tiny-gan", "generator.1.running_var"),
    ("tiny-language", "positions"),
]


@pytest.mark.parametrize(("name", "state"), STATES)
def test_a_graph_of_another_training_state_is_refused(name: str, state: str, candidates: Candidates) -> None:
    candidate = candidates(name)
    model = copy.deepcopy(candidate.source.run.model)
    tensor = model.state_dict()[state]
    tensor.reshape(-1)[-1] += 0.01
    with pytest.raises(
        ExportError, match=r"weights: initializer .* is no constant of the model: the nearest is .* at \["
    ):
        check_weights(replace(candidate, source=run_source(replace(candidate.source.run, model=model))))


def test_what_is_not_exported_may_change(candidates: Candidates) -> None:
    candidate = candidates("tiny-gan")
    model: Any = copy.deepcopy(candidate.source.run.model)
    with torch.no_grad():
        model.discriminator[1].weight.mul_(2)
    model.generator[1].num_batches_tracked.add_(5)
    check_weights(replace(candidate, source=run_source(replace(candidate.source.run, model=model))))


def test_a_parameter_that_a_run_never_uses_is_refused_and_another_source_names_it(runs: Runs) -> None:
    candidate = make_candidate(replace(runs("tiny-rnn"), model=Idle()))
    with pytest.raises(ExportError, match="weights: 'idle' is used by no operator of the model"):
        check_weights(candidate)
    weights = check_weights(replace(candidate, source=replace(candidate.source, run=None)))
    assert weights.unused == ("idle", "mask")
    assert weights.transformations["transposed"] >= 1
