"""Arrays of a device are written in place, and read where they are asked."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.engine.sessions import device_array
from service.engine.sessions.device_array import device_zeros


def test_values_of_the_host_and_of_the_device_are_put_in_place() -> None:
    array = device_zeros((4, 3, 2), "cpu")
    address = array.view(0, (1,)).address
    array.write(np.array([[1, 2], [3, 0]]), np.array([[1, 2], [3, 4]], np.float32))
    other = device_zeros((2, 2), "cpu")
    other.write(np.array([[1]]), np.array([[5, 6]], np.float32))
    array.write(np.array([[0, 0], [0, 1]]), other.view(0, (2, 2)))
    array.write(np.array([[2, 1]]), other.gather(np.array([[1]])))
    expected = np.zeros((4, 3, 2))
    expected[1, 2], expected[3, 0], expected[0, 1], expected[2, 1] = (1, 2), (3, 4), (5, 6), (5, 6)
    np.testing.assert_array_equal(array.read(), expected)
    assert array.view(0, (1,)).address == address, "the array was not written in place"


def test_a_view_begins_at_an_index_of_the_first_axis() -> None:
    array = device_zeros((4, 3), "cpu")
    array.write(np.arange(4)[:, None], np.arange(12, dtype=np.float32).reshape(4, 3))
    target = device_zeros((1, 6), "cpu")
    target.write(np.zeros((1, 1), np.int64), array.view(2, (1, 6)))
    np.testing.assert_array_equal(target.read(), np.arange(6, 12, dtype=np.float32)[None])


def test_what_was_read_or_gathered_stays_as_it_was() -> None:
    array = device_zeros((2,), "cpu")
    before, gathered = array.read(), array.gather(np.array([[0]]))
    array.write(np.array([[0]]), np.ones(1, np.float32))
    assert (before.tolist(), gathered.read().tolist(), array.read().tolist()) == ([0, 0], [0], [1, 0])


@pytest.mark.parametrize(("operator", "inputs"), [("ScatterND", "xiv"), ("GatherND", "xi")])
def test_the_graphs_are_one_operator_each(operator: str, inputs: str) -> None:
    def value(name: str) -> onnx.ValueInfoProto:
        info = onnx.ValueInfoProto(name=name)
        info.type.tensor_type.elem_type = TensorProto.INT64 if name == "i" else TensorProto.FLOAT
        return info

    node = helper.make_node(operator, list(inputs), ["y"])
    graph = helper.make_graph([node], "g", [value(name) for name in inputs], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert model.SerializeToString() == {"ScatterND": device_array.SCATTER, "GatherND": device_array.GATHER}[operator]
