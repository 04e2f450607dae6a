"""References to a data file are read strictly: every byte of the file has one meaning, and no other file is meant."""

from collections.abc import Callable

import onnx
import pytest
from onnx import TensorProto, helper

from service.data_files.external import check_external, external_tensors
from service.manifest import MODEL_DATA
from service.onnx_wire import read_model
from service.operators import check_operators
from tests.service.bundles import OPSET
from tests.service.data_files.models import initializer, refer, split_model, weights

Change = Callable[[onnx.ModelProto], None]


def set_entry(name: str, key: str, value: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        entries = {entry.key: entry for entry in initializer(model, name).external_data}
        entries[key].value = value

    return change


def add_entry(key: str, value: str) -> Change:
    return lambda model: initializer(model, "first").external_data.add(key=key, value=value)


def move_bias(model: onnx.ModelProto) -> None:
    tensor = initializer(model, "bias")
    tensor.ClearField("raw_data")
    refer(tensor, offset=0, length=512)


def check(model: onnx.ModelProto, sizes: dict[str, int]) -> None:
    check_operators(model.SerializeToString(), opset=OPSET, data_files=sizes)


def test_the_tensors_of_a_data_file_are_read() -> None:
    model, data = split_model()
    check(model, {MODEL_DATA: len(data)})
    first, second = external_tensors(model.SerializeToString())
    assert (first.name, first.dtype, first.dims, first.location) == ("first", "float32", (16, 128), MODEL_DATA)
    assert (first.offset, first.size) == (0, 8192)
    assert data[second.offset : second.offset + second.size] == weights()["second"].tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_entry("first", "location", "../model.onnx.data"), "refers to external data in '../model.onnx.data'"),
        (set_entry("first", "location", "/etc/passwd"), "expected a data file that the manifest lists"),
        (set_entry("first", "location", "*/_ORT_MEM_ADDR_/*"), "expected a data file that the manifest lists"),
        (set_entry("first", "location", "./model.onnx.data"), "expected a data file that the manifest lists"),
        (set_entry("second", "offset", "0"), "'second' begins at byte 0 of model.onnx.data, expected 8192"),
        (set_entry("second", "offset", "8193"), "begins at byte 8193"),
        (set_entry("second", "offset", "12288"), "begins at byte 12288"),
        (set_entry("second", "offset", "-4096"), "has the offset '-4096', expected a decimal number"),
        (set_entry("second", "offset", "0x2000"), "expected a decimal number"),
        (set_entry("second", "offset", "08192"), "expected a decimal number"),
        (set_entry("second", "length", "65535"), "is float32 .128, 128., but its external data has 65535 bytes"),
        (set_entry("second", "length", "65537"), "but its external data has 65537 bytes"),
        (add_entry("checksum", "0"), "keys .'checksum', 'length', 'location', 'offset'., expected"),
        (add_entry("offset", "0"), "once each"),
        (lambda model: initializer(model, "first").external_data.pop(), "expected length, location, offset"),
        (lambda model: setattr(initializer(model, "first"), "data_location", 0), "expected length, location, offset"),
        (lambda model: setattr(initializer(model, "first"), "raw_data", b"1"), "external data and also raw_data"),
        (lambda model: initializer(model, "first").float_data.append(1), "external data and also float_data"),
        (lambda model: initializer(model, "first").dims.__setitem__(0, 15), "has 8192 bytes"),
        (lambda model: setattr(initializer(model, "first"), "data_type", TensorProto.BOOL), "is bool"),
        (move_bias, "512 bytes of external data, expected"),
    ],
)
def test_a_reference_that_may_mean_something_else_is_refused(change: Change, message: str) -> None:
    model, data = split_model()
    change(model)
    with pytest.raises(ValueError, match=message):
        check(model, {MODEL_DATA: len(data)})


@pytest.mark.parametrize("num_bytes", [-1, 1, 4096])
def test_a_file_of_another_size_is_refused(num_bytes: int) -> None:
    model, data = split_model()
    with pytest.raises(ValueError, match="the tensors of the graph end at byte 73728"):
        check(model, {MODEL_DATA: len(data) + num_bytes})


def test_without_a_data_file_every_reference_is_refused() -> None:
    model, _ = split_model()
    with pytest.raises(ValueError, match=r"'first' refers to external data.*there is none"):
        check(model, {})


def test_only_initializers_of_the_main_graph_may_refer() -> None:
    model, data = split_model()
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=(2048,))
    refer(tensor, offset=0, length=8192)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=tensor))
    with pytest.raises(ValueError, match="outside the initializers of its main graph"):
        check_external(read_model(model.SerializeToString()), {MODEL_DATA: len(data)})
