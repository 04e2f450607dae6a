"""Reads just enough of an ONNX file to refuse what must not be loaded, without the `onnx` package.

A file passes if it is well-formed protobuf, has a graph of standard operators at the declared opset, and carries all
of its data inside. The reader walks messages with a work list and bounded counts: hostile bytes cost seconds at most
and end in ValueError, never in a hang or a deep stack. Field numbers are those of onnx.proto.
"""

from collections.abc import Iterator

MAX_FIELDS = 500_000  # a 50-layer model has some 20,000
MAX_DEPTH = 64  # messages inside messages; If and Loop nest graphs at four a level
DOMAINS = frozenset({"", "ai.onnx"})

MESSAGES = {
    "Model": {7: "Graph", 8: "OperatorSet"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "OperatorSet": {},
    "Tensor": {},
}
REFUSED = {
    ("Model", 20): "it carries training information",
    ("Model", 25): "it defines local functions",
    ("Tensor", 13): "it refers to external data",
}
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

Field = tuple[int, int | memoryview]  # field number; a varint's value or a field's bytes


def check_model(content: bytes, *, opset: int) -> None:
    """Raise ValueError unless the model is self-contained and uses only standard operators at `opset`."""
    waiting = [("Model", memoryview(content), 0)]
    num_fields, num_graphs, opsets = 0, 0, dict[str, int]()
    while waiting:
        kind, message, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"messages are nested more than {MAX_DEPTH} deep")
        num_graphs += kind == "Graph"
        scalars: dict[int, int | memoryview] = {}
        for number, value in _fields(message):
            num_fields += 1
            if num_fields > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            if (kind, number) in REFUSED:
                raise ValueError(REFUSED[kind, number])
            inner = MESSAGES[kind].get(number)
            if inner is not None:
                waiting.append((inner, _bytes(value, kind, number), depth + 1))
            elif kind == "Node" and number == 7:
                _check_domain(value)
            elif kind == "Tensor" and number == 14 and value != 0:
                raise ValueError(REFUSED["Tensor", 13])
            elif kind == "OperatorSet":
                scalars[number] = value
        if kind == "OperatorSet":
            _add_opset(opsets, scalars)
    if not num_graphs:
        raise ValueError("it holds no graph")
    if opsets.get("") != opset:
        raise ValueError(f"opset {opsets.get('', 'missing')}, expected {opset}")


def _add_opset(opsets: dict[str, int], scalars: dict[int, int | memoryview]) -> None:
    domain = _check_domain(scalars.get(1, memoryview(b"")))
    version = scalars.get(2)
    if not isinstance(version, int):
        raise ValueError(f"the opset import of domain {domain!r} names no version")
    if opsets.setdefault(domain, version) != version:
        raise ValueError(f"domain {domain!r} is imported at opsets {opsets[domain]} and {version}")


def _check_domain(value: int | memoryview) -> str:
    domain = str(_bytes(value, "domain", 7), "utf-8")
    if domain not in DOMAINS:
        raise ValueError(f"operator domain {domain[:80]!r}, expected only standard ONNX operators")
    return ""


def _bytes(value: int | memoryview, kind: str, number: int) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"{kind} field {number} holds a number where bytes belong")
    return value


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of one message in order."""
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
            raise ValueError(f"truncated: field {number} has {size} bytes, {len(message) - position} are left")
        yield number, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number at `position` and the position after it; at most ten bytes long."""
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
