"""Malformed bytes raise ValueError in bounded time, and every message of a model is read."""

import pytest

from service.onnx_wire import MAX_FIELDS, read_messages
from tests.service.bundles import onnx_model

TINY = onnx_model("image-classifier")


def assert_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        for _ in read_messages(content):
            pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "field 7 has 9223372036854775807 bytes, but only 0 remain"),
        (b"\x3a" + b"\xff" * 11, "more than ten bytes"),
        (b"\x3a\x80", "truncated inside a number"),
        (b"\x3b\x3c", "wire type 3"),
        (b"\x3f", "wire type 7"),
        (b"\x38\x01", "Model field 7 holds a number"),
        (b"\x02\x00", "truncated: field 0"),
    ],
)
def test_malformed_bytes_raise_value_error(content: bytes, message: str) -> None:
    assert_refused(content, message)


def wrapped(inner: bytes, field: int) -> bytes:
    size, length = len(inner), bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([field << 3 | 2]) + bytes(length) + bytes([size]) + inner


def test_deep_nesting_is_refused_without_recursion() -> None:
    graph = b""
    for _ in range(2000):  # nested If nodes
        graph = wrapped(wrapped(wrapped(graph, 6), 5), 1)
    assert_refused(wrapped(graph, 7), "nested more than 64 deep")


def test_number_of_fields_is_bounded() -> None:
    assert_refused(b"\x08\x00" * (MAX_FIELDS * 40), f"more than {MAX_FIELDS} fields")


def test_every_message_is_read_with_its_kind() -> None:
    kinds = [kind for kind, _ in read_messages(TINY.SerializeToString())]
    assert kinds.count("Model") == kinds.count("Graph") == 1
    assert kinds.count("Node") == len(TINY.graph.node)
    assert kinds.count("OperatorSet") == len(TINY.opset_import)
    names = [
        bytes(value).decode()
        for kind, fields in read_messages(TINY.SerializeToString())
        if kind == "Node"
        for number, value in fields
        if number == 4 and not isinstance(value, int)
    ]
    assert sorted(names) == sorted(node.op_type for node in TINY.graph.node)
