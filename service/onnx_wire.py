"""A reader of ONNX files that needs neither the `onnx` package nor onnxruntime: protobuf messages and their fields.

The reader uses a work list and bounded counts, so malicious bytes take seconds at most and raise ValueError; they
cannot cause a hang or deep recursion. Field numbers are those of onnx.proto.
"""

from collections.abc import Iterator

# A 50-layer model has about 20,000 fields.
MAX_FIELDS = 500_000
# Levels of nested messages; each If or Loop adds four.
MAX_DEPTH = 64

NESTED_MESSAGES = {
    "Model": {7: "Graph", 8: "OperatorSet"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "OperatorSet": {},
    "Tensor": {},
}
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

# Number, and the value of a varint or the bytes of any other field.
Field = tuple[int, int | memoryview]


def read_messages(content: bytes) -> Iterator[tuple[str, list[Field]]]:
    """Yield kind and fields of every (nested) message. Raises ValueError: not protobuf, too deep, too many fields."""
    pending = [("Model", memoryview(content), 0)]
    num_fields = 0
    while pending:
        kind, message, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"messages are nested more than {MAX_DEPTH} deep")
        fields = []
        for number, value in _fields(message):
            num_fields += 1
            if num_fields > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            fields.append((number, value))
            if inner := NESTED_MESSAGES[kind].get(number):
                pending.append((inner, field_bytes(value, kind, number), depth + 1))
        yield kind, fields


def field_bytes(value: int | memoryview, kind: str, number: int) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"{kind} field {number} holds a number, expected bytes")
    return value


def _fields(message: memoryview) -> Iterator[Field]:
    """Yield number and value of each field in order; the value is the number of a varint, else the bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            scalar, position = _varint(message, position)
            yield number, scalar
            continue
        if wire_type == LENGTH:
            size, position = _varint(message, position)
        elif wire_type in {FIXED64, FIXED32}:
            size = 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"protobuf wire type {wire_type} at byte {position}")
        if number == 0 or size > len(message) - position:
            raise ValueError(f"truncated: field {number} has {size} bytes, but only {len(message) - position} remain")
        yield number, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position`, which has at most ten bytes, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("truncated inside a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number has more than ten bytes")
