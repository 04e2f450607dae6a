"""Bytes that two readers could read differently are refused; all others are read as the `onnx` package reads them."""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from service.onnx_wire import DATA_TYPES, MAX_DEPTH, MAX_VALUES, SCHEMA, Message, read_model, read_tensors
from tests.service.bundles import FAMILIES, onnx_model

TINY = onnx_model("image-classifier")
# The number 1.5 in the list `floats` of an attribute.
FLOAT = b"\x3d" + struct.pack("<f", 1.5)


def assert_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_model(content)


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, content: bytes | int) -> bytes:
    """Encode one field: a varint, or bytes with their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content & (1 << 64) - 1)
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(content: bytes) -> bytes:
    """A model whose graph has one initializer with these fields."""
    return field(7, field(5, content))


def attribute(content: bytes) -> bytes:
    return field(7, field(1, field(5, content)))


def dimension(content: bytes) -> bytes:
    """A model with one input, whose shape has one dimension with these fields."""
    return field(7, field(11, field(2, field(1, field(2, field(1, content))))))


def pairs_of_messages(kind: str, descriptor: Descriptor, visited: dict[str, Descriptor]) -> Iterator[tuple[str, Any]]:
    """Yield each message of our schema with that of the `onnx` package that stands at the same place."""
    yield kind, descriptor
    visited[kind] = descriptor
    for number, spec in SCHEMA[kind].items():
        inner = descriptor.fields_by_number[number].message_type
        if spec.type in SCHEMA and spec.type not in visited:
            yield from pairs_of_messages(spec.type, inner, visited)


def test_schema_is_that_of_the_onnx_package() -> None:
    pairs = dict(pairs_of_messages("Model", TINY.DESCRIPTOR, {}))
    assert set(pairs) == set(SCHEMA)
    types = {getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name for name in ("int32", "int64", "uint64", "float")}
    types |= {getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name for name in ("double", "string", "bytes")}
    for kind, descriptor in pairs.items():
        assert {spec.name: number for number, spec in SCHEMA[kind].items()} == {
            theirs.name: theirs.number for theirs in descriptor.fields
        }
        for number, spec in SCHEMA[kind].items():
            theirs = descriptor.fields_by_number[number]
            repeated = theirs.is_repeated() if callable(theirs.is_repeated) else theirs.is_repeated
            assert (spec.repeated, spec.oneof) == (repeated, theirs.containing_oneof is not None), (kind, spec)
            if theirs.enum_type:
                largest = max(theirs.enum_type.values_by_number)
                assert spec.type == f"enum{largest}"
            elif not theirs.message_type:
                assert spec.type == types[theirs.type], (kind, spec)


def test_data_types_are_those_of_the_onnx_package() -> None:
    assert sorted(DATA_TYPES) == [*range(1, 10), 10, 11, 12, 13, 16]
    for number, (name, item_bytes) in DATA_TYPES.items():
        dtype = helper.tensor_dtype_to_np_dtype(number)
        if number == TensorProto.STRING:
            assert (name, item_bytes) == ("string", 0)
            continue
        assert (str(dtype), dtype.itemsize) == (name, item_bytes)


def as_dict(message: Message, content: bytes) -> dict[str, list[Any]]:
    return {
        name: [
            as_dict(value, content)
            if isinstance(value, Message)
            else content[value]
            if isinstance(value, slice)
            else value
            for value in values
        ]
        for name, values in message.values.items()
    }


def proto_as_dict(message: Any) -> dict[str, list[Any]]:
    fields = {}
    for spec, value in message.ListFields():
        repeated = spec.is_repeated() if callable(spec.is_repeated) else spec.is_repeated
        values = list(value) if repeated else [value]
        fields[spec.name] = [proto_as_dict(value) if spec.message_type else value for value in values]
    return fields


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_of_every_message_is_read_as_the_onnx_package_reads_it(family: str) -> None:
    model = onnx_model(family)
    content = model.SerializeToString()
    assert as_dict(read_model(content), content) == proto_as_dict(model)


def test_numbers_of_every_type_are_read_as_the_onnx_package_reads_them() -> None:
    model = onnx.ModelProto(ir_version=-(1 << 63), model_version=(1 << 63) - 1, producer_name="駅弁")
    model.configuration.add(num_devices=-(1 << 31), device=["a", ""])
    extremes = TensorProto(
        float_data=[1.5, -2.25], int32_data=[-1, (1 << 31) - 1], int64_data=[-1, 0, 1 << 40], string_data=[b"\xff", b""]
    )
    extremes.double_data.extend([1e300, -0.0])
    extremes.uint64_data.extend([(1 << 64) - 1, 0])
    extremes.data_location = TensorProto.EXTERNAL
    model.graph.initializer.append(extremes)
    content = model.SerializeToString()
    assert as_dict(read_model(content), content) == proto_as_dict(model)


def test_lists_of_numbers_are_read_packed_and_unpacked() -> None:
    unpacked = tensor(field(1, 3) + field(1, 300) + b"\x25" + struct.pack("<f", 1.5))
    packed = tensor(field(1, b"\x03\xac\x02") + field(4, struct.pack("<f", 1.5)))
    for content in (unpacked, packed, tensor(field(1, b"\x03") + field(1, 300) + field(4, struct.pack("<f", 1.5)))):
        (message,) = [message for message in read_model(content).walk() if message.kind == "Tensor"]
        assert message.numbers("dims") == [3, 300]
        assert message.values["float_data"] == [1.5]
        theirs = onnx.load_from_string(content).graph.initializer[0]
        assert (list(theirs.dims), list(theirs.float_data)) == ([3, 300], [1.5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "truncated: a field has 9223372036854775807 bytes, but only 0"),
        (b"\x3a\x02\x0a", "truncated: a field has 2 bytes, but only 1 remain at byte 2"),
        (b"\x3a", "truncated inside a number at byte 1"),
        (b"\x3a\x80", "truncated inside a number at byte 2"),
        (tensor(b"\x22\x03\0\0\0"), "truncated inside a number"),
        (tensor(b"\x25\0\0\0"), "truncated inside a number"),
        (tensor(b"\x52\x07" + b"\0" * 7), "truncated inside a number"),
    ],
)
def test_truncated_file_is_refused(content: bytes, message: str) -> None:
    assert_refused(content, message)


def test_every_truncated_model_is_refused_or_ends_between_two_fields() -> None:
    content = TINY.SerializeToString()
    boundaries = set()
    position = 0
    while position < len(content):
        boundaries.add(position)
        key, position = _varint(content, position)
        size, position = _varint(content, position)
        position += size if key & 7 == 2 else 0
    for size in range(len(content)):
        if size in boundaries:
            read_model(content[:size])
        else:
            assert_refused(content[:size], ".")


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[position] & 0x7F) << shift
        shift, position = shift + 7, position + 1
        if content[position - 1] < 0x80:
            return value, position


@pytest.mark.parametrize("number", [7, 8, 14, 25])
def test_tag_above_32_bits_is_refused(number: int) -> None:
    """onnxruntime cuts such a tag to 32 bits and sees a graph, an opset, metadata or a function."""
    content = b"domain"
    tricked = varint(1 << 32 | number << 3 | 2) + varint(len(content)) + content
    assert_refused(tricked, "a tag has more than 32 bits")
    assert_refused(varint(1 << 63 | number << 3 | 2) + varint(len(content)) + content, "a tag has more than 32 bits")


def test_file_that_is_also_a_flatbuffer_is_refused() -> None:
    """A valid ONNX file whose producer has such a name that onnxruntime takes the file for its own format."""
    content = b"\x08\x0a\x12\x04ORTM"
    assert onnx.load_from_string(content).producer_name == "ORTM"
    assert_refused(content, "it is also a FlatBuffer in the format of onnxruntime")


@pytest.mark.parametrize("number", [13, 14])
def test_external_data_behind_a_tag_above_32_bits_is_refused(number: int) -> None:
    """onnxruntime sees the location of a file and reads it from the working directory."""
    entry = field(1, b"location") + field(2, b"w.bin")
    assert_refused(
        tensor(varint(1 << 32 | number << 3 | 2) + varint(len(entry)) + entry), "a tag has more than 32 bits"
    )


@pytest.mark.parametrize("content", [b"\x02\x00", b"\x00\x00", b"\x00"])
def test_field_number_0_is_refused(content: bytes) -> None:
    """Some readers end the message there and ignore what follows."""
    assert_refused(content + TINY.SerializeToString(), "Model has no field 0")


@pytest.mark.parametrize("number", [9, 15, 99, (1 << 29) - 1])
def test_unknown_field_is_refused(number: int) -> None:
    assert_refused(TINY.SerializeToString() + field(number, b""), f"Model has no field {number} ")
    assert_refused(field(7, field(3, b"")), "Graph has no field 3 ")


def test_unknown_field_is_refused_in_every_message() -> None:
    paths: dict[str, list[int]] = {"Model": []}
    pending = ["Model"]
    while pending:
        kind = pending.pop()
        for number, spec in SCHEMA[kind].items():
            if spec.type in SCHEMA and spec.type not in paths:
                paths[spec.type] = [*paths[kind], number]
                pending.append(spec.type)
    assert set(paths) == set(SCHEMA)
    for kind, numbers in paths.items():
        content = field(29, 1)
        for number in reversed(numbers):
            content = field(number, content)
        assert_refused(content, f"{kind} has no field 29 ")


@pytest.mark.parametrize("wire_type", [0, 1, 3, 4, 5, 6, 7])
def test_field_of_another_wire_type_is_refused(wire_type: int) -> None:
    """3 and 4 are groups, whose end a reader may or may not look for."""
    assert_refused(bytes([7 << 3 | wire_type]) + b"\0" * 8, f"Model field 'graph' has wire type {wire_type}")


@pytest.mark.parametrize("wire_type", [1, 2, 3, 4, 5, 6, 7])
def test_number_of_another_wire_type_is_refused(wire_type: int) -> None:
    assert_refused(bytes([1 << 3 | wire_type]) + b"\0" * 8, f"Model field 'ir_version' has wire type {wire_type}")


def test_packed_list_of_texts_is_refused() -> None:
    assert_refused(field(7, field(1, field(1, 1))), "Node field 'input' has wire type 0")


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("Model", "graph", field(7, b"") * 2),
        ("Model", "ir_version", field(1, 10) * 2),
        ("Model", "producer_name", field(2, b"a") + field(2, b"b")),
        ("Graph", "name", field(7, field(2, b"a") * 2)),
        ("Node", "op_type", field(7, field(1, field(4, b"Relu") + field(4, b"Loop")))),
        ("Node", "domain", field(7, field(1, field(7, b"") + field(7, b"com.microsoft")))),
        ("Attribute", "g", attribute(field(6, b"") * 2)),
        ("Attribute", "type", attribute(field(20, 1) + field(20, 5))),
        ("Tensor", "raw_data", tensor(field(9, b"1") + field(9, b"2"))),
        ("Tensor", "data_type", tensor(field(2, 1) + field(2, 7))),
        ("OperatorSetId", "version", field(8, field(2, 20) * 2)),
        ("ValueInfo", "type", field(7, field(11, field(2, b"") * 2))),
    ],
)
def test_singular_field_that_comes_twice_is_refused(kind: str, name: str, content: bytes) -> None:
    assert_refused(content, f"{kind} has field '{name}' twice")


def test_two_members_of_a_oneof_are_refused() -> None:
    assert_refused(dimension(field(1, 3) + field(2, b"batch")), "Dimension has field 'dim_param' beside 'dim_value'")
    types = field(7, field(11, field(2, field(1, b"") + field(4, b""))))
    assert_refused(types, "Type has field 'sequence_type' beside 'tensor_type'")
    read_model(dimension(field(2, b"batch") + field(3, b"denotation")))


@pytest.mark.parametrize(
    "content",
    [
        b"\xba\x00\x00",  # the tag of an empty graph in two bytes
        b"\x3a\x80\x00",  # its length in two bytes
        b"\x08\x8a\x00",  # IR version 10 in two bytes
        b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
        tensor(field(1, b"\x83\x00")),  # an axis of a packed list
    ],
)
def test_number_that_is_longer_than_necessary_is_refused(content: bytes) -> None:
    assert_refused(content, "a number is longer than necessary")


@pytest.mark.parametrize("content", [b"\x08" + b"\xff" * 10 + b"\x01", b"\xff" * 11, b"\x3a" + b"\xff" * 11])
def test_number_of_more_than_ten_bytes_is_refused(content: bytes) -> None:
    assert_refused(content, "a number has more than ten bytes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor(b"\x10" + varint(1 << 32 | 7)), "Tensor field 'data_type' is 4294967303, expected -2147483648 to"),
        (tensor(b"\x10" + varint(1 << 31)), "Tensor field 'data_type' is 2147483648"),
        (tensor(b"\x28" + varint((1 << 64) - (1 << 31) - 1)), "Tensor field 'int32_data' is -2147483649"),
        (b"\x08" + b"\xff" * 9 + b"\x03", "Model field 'ir_version' is"),
        (tensor(b"\x58" + b"\xff" * 9 + b"\x02"), "Tensor field 'uint64_data' is"),
    ],
)
def test_number_beyond_its_type_is_refused(content: bytes, message: str) -> None:
    """A reader that cuts it to 32 or 64 bits would see another number."""
    assert_refused(content, message)


def test_unknown_value_of_an_enumeration_is_refused() -> None:
    """Readers of proto2 ignore the field, others see the number."""
    assert_refused(tensor(field(14, 2)), "Tensor field 'data_location' is 2, expected 0 to 1")
    assert_refused(tensor(field(14, -1)), "Tensor field 'data_location' is 18446744073709551615, expected 0 to 1")
    assert_refused(attribute(field(20, 15)), "Attribute field 'type' is 15, expected 0 to 14")


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe9\xa7"])
def test_text_that_is_not_utf8_is_refused(text: bytes) -> None:
    assert_refused(field(8, field(1, text)), "OperatorSetId field 'domain' is not UTF-8")


def test_text_with_a_nul_character_is_refused() -> None:
    """An interface in C boundaries the name there."""
    assert_refused(field(7, field(11, field(1, b"images\0evil"))), "ValueInfo field 'name' holds a NUL character")


def test_deep_nesting_is_refused_without_recursion() -> None:
    graph = b""
    for _ in range(2000):  # nested If nodes
        graph = field(1, field(5, field(6, graph)))
    assert_refused(field(7, graph), f"nested more than {MAX_DEPTH} deep")


def test_nesting_is_read_up_to_its_limit() -> None:
    content = b""
    for _ in range((MAX_DEPTH - 1) // 3):
        content = field(1, field(5, field(6, content)))
    assert sum(message.kind == "Graph" for message in read_model(field(7, content)).walk()) == 1 + (MAX_DEPTH - 1) // 3
    assert_refused(field(7, field(1, field(5, field(6, content)))), f"nested more than {MAX_DEPTH} deep")


@pytest.mark.parametrize(
    ("content", "num_fields"),
    [(field(8, b"") * 100, 100), (tensor(field(7, b"\x01" * 97)), 3), (tensor(field(4, b"\0" * 4 * 97)), 3)],
)
def test_number_of_fields_is_bounded(content: bytes, num_fields: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.onnx_wire.MAX_FIELDS", num_fields)
    read_model(content)
    monkeypatch.setattr("service.onnx_wire.MAX_FIELDS", num_fields - 1)
    assert_refused(content, f"more than {num_fields - 1} fields")


@pytest.mark.parametrize(
    "content",
    [
        tensor(field(7, b"\x01" * 100)),
        tensor(field(4, b"\0" * 4 * 100)),
        attribute(field(8, 1) * 100),
        attribute(FLOAT * 100),
        attribute(field(9, b"LEAF") * 101),  # the first is a field
    ],
)
def test_number_of_values_is_bounded(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.onnx_wire.MAX_VALUES", 100)
    read_model(content)
    monkeypatch.setattr("service.onnx_wire.MAX_VALUES", 99)
    assert_refused(content, "lists have more than 99 values")


def test_millions_of_values_are_refused_after_the_limit() -> None:
    assert_refused(tensor(field(7, b"\x01" * 10_000_000)), f"more than {MAX_VALUES} values")
    assert_refused(attribute(field(8, 1) * 5_000_000), f"more than {MAX_VALUES} values")


@given(
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1)), st.lists(st.floats(width=32)), st.lists(st.binary(max_size=300))
)
def test_lists_are_read_as_the_onnx_package_reads_them(
    ints: list[int], floats: list[float], texts: list[bytes]
) -> None:
    node = onnx.NodeProto()
    node.attribute.add(name="a", ints=ints, floats=floats, strings=texts)
    tensor = TensorProto(int64_data=ints, float_data=floats, double_data=floats, uint64_data=[abs(i) for i in ints])
    node.attribute.add(name="b", t=tensor)
    model = onnx.ModelProto(graph=onnx.GraphProto(node=[node]))
    content = model.SerializeToString()
    # Their text is compared, because NaN does not equal itself.
    assert repr(as_dict(read_model(content), content)) == repr(proto_as_dict(model))


@pytest.mark.parametrize("number", [1, 127, 128, 300, 1 << 40, -1])
@pytest.mark.parametrize("end", [b"\x40", b"\x40\x80", b"\x40\x80\x00", b"\x40" + b"\xff" * 11])
def test_fault_behind_a_list_is_found(number: int, end: bytes) -> None:
    read_model(attribute(field(8, number) * 3))
    assert_refused(attribute(field(8, number) * 3 + end), "truncated|longer than necessary|more than ten bytes")


def test_list_of_more_numbers_than_one_match_is_read_whole() -> None:
    content = attribute(field(8, 5) * 70_000 + field(8, 300) + FLOAT * 70_000)
    (node,) = read_model(content).messages("graph")[0].messages("node")
    (read,) = node.messages("attribute")
    assert read.numbers("ints") == [5] * 70_000 + [300]
    assert read.values["floats"] == [1.5] * 70_000


def test_tensors_are_read_with_the_place_of_their_bytes() -> None:
    weights = {"big": np.arange(300, dtype=np.float32).reshape(3, 100), "axes": np.array([-1, 7]), "one": np.float32(2)}
    inner = helper.make_graph([], "inner", [], [], [numpy_helper.from_array(weights["axes"], "inner axes")])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([True, False]))),
        helper.make_node("If", ["x"], ["y"], then_branch=inner),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [], [], [*tensors, helper.make_tensor("listed", TensorProto.FLOAT, [1], [3])])
    content = helper.make_model(graph).SerializeToString()
    read = {info.name: info for info in read_tensors(content)}
    assert set(read) == {"big", "axes", "one", "listed", "inner axes", ""}
    for name, value in [*weights.items(), ("inner axes", weights["axes"]), ("", np.array([True, False]))]:
        info, array = read[name], np.asarray(value)
        assert (info.dtype, info.dims) == (str(array.dtype), array.shape)
        assert content[info.offset : info.offset + info.size] == array.tobytes()
    assert (read["listed"].dtype, read["listed"].dims, read["listed"].size) == ("float32", (1,), 0)


def test_tensor_of_strings_has_no_bytes() -> None:
    graph = helper.make_graph([], "g", [], [], [helper.make_tensor("words", TensorProto.STRING, [1], [b"a"])])
    (info,) = read_tensors(helper.make_model(graph).SerializeToString())
    assert (info.dtype, info.dims, info.size) == ("string", (1,), 0)


def test_absent_fields_have_the_default_of_protobuf() -> None:
    message = Message("Node")
    assert (message.number("x"), message.number("x", 3), message.text("x"), message.span("x")) == (0, 3, "", None)
    assert (message.numbers("x"), message.texts("x"), message.messages("x")) == ([], [], [])
    assert "x" not in message
