"""The constants of a graph are read in the order of its nodes, in PyTorch's conventions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from export.errors import ExportError
from export.gates.weights.graph import read_constants

RNG = np.random.default_rng(0)


def graph(nodes: Sequence[onnx.NodeProto], **arrays: Any) -> onnx.GraphProto:
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    return helper.make_graph(nodes, "graph", [], [], initializers)


def test_floats_come_in_the_order_of_nodes_inputs_and_attributes() -> None:
    found = read_constants(
        graph(
            [
                helper.make_node("Mul", ["x", "b"], ["y"]),
                helper.make_node("LayerNormalization", ["y", "c", "a"], ["z"], epsilon=0.25),
                helper.make_node("Add", ["z", "b"], ["w"]),
            ],
            a=np.float32([1]),
            b=np.float32([2]),
            c=np.float32([3]),
        )
    )
    assert [str(one) for one in found.floats] == [
        "initializer 'b' (1,)",
        "initializer 'c' (1,)",
        "initializer 'a' (1,)",
        "attribute 'epsilon' ()",
        "initializer 'b' (1,)",
    ]
    assert [one.reader for one in found.floats][3] == "node 1 (LayerNormalization)"
    assert found.floats[3].value == 0.25
    assert not found.unread
    assert not found.integers


def test_an_absent_attribute_has_the_default_of_its_operator() -> None:
    [found] = read_constants(graph([helper.make_node("LeakyRelu", ["x"], ["y"])])).floats
    assert (found.name, found.value) == ("attribute 'alpha'", np.float32(0.01))


def test_a_neutral_factor_is_no_constant_and_any_other_is() -> None:
    weight = np.float32(RNG.normal(size=(2, 3)))
    for alpha, names in ((1.0, ["initializer 'w'"]), (1.5, ["initializer 'w'", "attribute 'alpha'"])):
        node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1, alpha=alpha)
        found = read_constants(graph([node], w=weight)).floats
        assert [one.name for one in found] == names
        np.testing.assert_array_equal(found[0].value, weight.T)
        np.testing.assert_array_equal(found[0].raw, weight)


def test_the_second_factor_is_transposed_only_for_a_gemm_that_says_so() -> None:
    weight = np.float32(RNG.normal(size=(2, 3)))
    for node in (helper.make_node("Gemm", ["x", "w"], ["y"]), helper.make_node("MatMul", ["x", "w"], ["y"])):
        np.testing.assert_array_equal(read_constants(graph([node], w=weight)).floats[0].value, weight)


@pytest.mark.parametrize(("operator", "order"), [("LSTM", (0, 3, 1, 2)), ("GRU", (1, 0, 2)), ("RNN", (0,))])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_weights_are_pytorchs(operator: str, order: tuple[int, ...], bias: bool) -> None:
    """The orders are written down again here: PyTorch's LSTM has i f g o, ONNX i o f c; the GRU r z n and z r h."""
    module: Any = getattr(nn, operator)(3, 5, bias=bias)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")[: 4 if bias else 2]
    stored = [getattr(module, name).detach().numpy() for name in names]
    onnx_order = [
        np.concatenate([array.reshape(len(order), 5, *array.shape[1:])[i] for i in order]) for array in stored
    ]
    arrays = {"W": onnx_order[0][None], "R": onnx_order[1][None]}
    if bias:
        arrays["B"] = np.concatenate(onnx_order[2:])[None]
    node = helper.make_node(operator, ["x", *arrays], ["y"], hidden_size=5)
    found = read_constants(graph([node], **arrays)).floats
    assert len(found) == len(stored)
    for one, expected in zip(found, stored, strict=True):
        np.testing.assert_array_equal(one.value, expected)
    reordered = [] if operator == "RNN" else ["gates reordered"]
    joined = " and ".join([*reordered, "joined"])
    assert [one.change for one in found] == ["".join(reordered)] * 2 + [joined] * (len(found) - 2)


def test_the_directions_of_a_recurrent_layer_follow_each_other() -> None:
    weights = {name: np.float32(RNG.normal(size=(2, 5, size))) for name, size in (("W", 3), ("R", 5))}
    node = helper.make_node("RNN", ["x", "W", "R"], ["y"], hidden_size=5, direction="bidirectional")
    found = read_constants(graph([node], **weights)).floats
    expected = [weights["W"][0], weights["R"][0], weights["W"][1], weights["R"][1]]
    for one, array in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.value, array)


def test_lengths_and_states_of_a_recurrent_layer_are_constants_too() -> None:
    arrays = {"W": np.zeros((1, 5, 3)), "R": np.zeros((1, 5, 5)), "lengths": np.ones(2), "h": np.ones((1, 2, 5))}
    node = helper.make_node("RNN", ["x", "W", "R", "", "lengths", "h"], ["y"], hidden_size=5)
    found = read_constants(graph([node], **{name: np.float32(array) for name, array in arrays.items()})).floats
    assert [one.name for one in found] == [f"initializer '{name}'" for name in arrays]


def test_recurrent_weights_of_another_size_are_refused() -> None:
    arrays = {"W": np.zeros((1, 6, 3), np.float32), "R": np.zeros((1, 6, 5), np.float32)}
    with pytest.raises(ExportError, match=r"weights: initializer 'W' \(1, 6, 3\) does not fit node 0 \(LSTM\)"):
        read_constants(graph([helper.make_node("LSTM", ["x", "W", "R"], ["y"])], **arrays))


def test_whole_numbers_and_constants_that_no_node_reads_are_apart() -> None:
    found = read_constants(
        graph(
            [helper.make_node("Gather", ["x", "i"], ["y"]), helper.make_node("Not", ["m"], ["n"])],
            i=np.int64(-1),
            m=np.array([True]),
            rest=np.float32([1, 2]),
        )
    )
    assert set(found.integers) == {"initializer 'i'", "initializer 'm'"}
    assert list(found.unread) == ["rest"]
    assert not found.floats


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("value_float", 2.5), ("value_floats", [2.5]), ("value", numpy_helper.from_array(np.float32(2.5)))],
)
def test_constant_nodes_count_as_initializers(attribute: str, value: Any) -> None:
    constant = helper.make_node("Constant", [], ["c"], **{attribute: value})
    [found] = read_constants(graph([constant, helper.make_node("Mul", ["x", "c"], ["y"])])).floats
    assert found.value == np.float32(2.5)
    assert set(read_constants(graph([constant])).unread) == {"c"}


def test_constant_nodes_hold_whole_numbers_too() -> None:
    constant = helper.make_node("Constant", [], ["c"], value_ints=[3, 4])
    [(name, value)] = read_constants(graph([constant, helper.make_node("Reshape", ["x", "c"], ["y"])])).integers.items()
    assert (name, value.tolist()) == ("initializer 'c'", [3, 4])


def test_a_tensor_in_an_attribute_is_a_constant() -> None:
    fill = numpy_helper.from_array(np.float32([7]))
    [found] = read_constants(graph([helper.make_node("ConstantOfShape", ["s"], ["y"], value=fill)])).floats
    assert (found.name, found.value.tolist()) == ("attribute 'value'", [7])
    fill = numpy_helper.from_array(np.int64([7]))
    constants = read_constants(graph([helper.make_node("ConstantOfShape", ["s"], ["y"], value=fill)]))
    assert not constants.floats
    assert [*constants.integers] == ["attribute 'value' of node 0 (ConstantOfShape)"]


def test_ambiguous_graphs_are_refused() -> None:
    twice = graph([helper.make_node("Relu", ["a"], ["y"])], a=np.float32(1))
    twice.initializer.append(twice.initializer[0])
    with pytest.raises(ExportError, match="two initializers have the name 'a'"):
        read_constants(twice)
    sparse = graph([])
    sparse.sparse_initializer.add()
    with pytest.raises(ExportError, match="sparse initializers"):
        read_constants(sparse)


def test_pytorchs_own_lstm_agrees_with_the_order_of_gates() -> None:
    """ONNX Runtime computes PyTorch's LSTM from weights that were put into the order that `read_constants` undoes."""
    ort = pytest.importorskip("onnxruntime")
    module = nn.LSTM(3, 5)
    order = (0, 3, 1, 2)

    def reordered(name: str) -> Any:
        array = getattr(module, f"{name}_l0").detach().numpy()
        return np.concatenate([array.reshape(4, 5, *array.shape[1:])[i] for i in order])

    arrays = {
        "W": reordered("weight_ih")[None],
        "R": reordered("weight_hh")[None],
        "B": np.concatenate([reordered("bias_ih"), reordered("bias_hh")])[None],
    }
    proto = graph([helper.make_node("LSTM", ["x", *arrays], ["y"], hidden_size=5)], **arrays)
    proto.input.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 2, 3]))
    proto.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = torch.randn(4, 2, 3)
    [y] = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(y[:, 0], module(x)[0].detach().numpy(), atol=1e-6)
