"""Arrays of a device begin as zeros, change in place and are freed with their object."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.engine.gpu.memory import Copy
from service.engine.sessions import device_array
from service.engine.sessions.device_array import DeviceArray, DeviceView, scatter
from tests.service.engine.gpu.host_memory import HostMemory


@pytest.fixture
def memory() -> HostMemory:
    return HostMemory()


def read(view: DeviceView) -> np.ndarray:
    values = np.empty(view.shape, np.float32)
    HostMemory().copy([Copy(values.ctypes.data, 0, view.address, 0, values.nbytes, 1)])
    return values


def filled(values: np.ndarray, memory: HostMemory) -> DeviceArray:
    array, values = DeviceArray(values.size, memory), values.astype(np.float32)
    memory.copy([Copy(array.address, 0, values.ctypes.data, 0, values.nbytes, 1)])
    return array


def test_values_are_put_at_indices_in_place(memory: HostMemory) -> None:
    array, values, nines = DeviceArray(24, memory), filled(np.arange(1, 5), memory), filled(np.full(6, 9), memory)
    scatter(array.view(0, (4, 3, 2)), np.array([[1, 2], [3, 0]]), values.view(0, (2, 2)))
    scatter(array.view(0, (4, 6)), np.array([[[2]]]), nines.view(0, (1, 1, 6)))
    expected = np.zeros((4, 3, 2))
    expected[1, 2], expected[3, 0], expected[2] = (1, 2), (3, 4), 9
    np.testing.assert_array_equal(read(array.view(0, (4, 3, 2))), expected)


def test_a_view_begins_at_a_number(memory: HostMemory) -> None:
    array = filled(np.arange(12), memory)
    np.testing.assert_array_equal(read(array.view(5, (2, 3))), np.arange(5, 11).reshape(2, 3))


def test_an_array_is_freed_with_its_object(memory: HostMemory) -> None:
    array = DeviceArray(10, memory)
    assert memory.num_bytes == 40
    del array
    assert memory.num_bytes == 0


def test_the_graph_is_one_operator() -> None:
    def value(name: str) -> onnx.ValueInfoProto:
        info = onnx.ValueInfoProto(name=name)
        info.type.tensor_type.elem_type = TensorProto.INT64 if name == "i" else TensorProto.FLOAT
        return info

    node = helper.make_node("ScatterND", list("xiv"), ["y"])
    graph = helper.make_graph([node], "g", [value(name) for name in "xiv"], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert model.SerializeToString() == device_array.SCATTER
