"""Random changes of ONNX files, made on the bytes and on their protobuf structure, to search for misread files.

A file is read into a tree of fields, a few of them are changed, and the tree is written again. A change may write what
no protobuf library writes: tags above 32 bits, numbers that are too long, groups, merged messages.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import helper

from service.onnx_wire import SCHEMA
from service.opsets.imports import MACHINE_LEARNING as ML

VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = range(6)
TEXTS = (
    b"",
    b"ai.onnx",
    b"ai.onnx.ml",
    b"com.microsoft",
    b"Loop",
    b"If",
    b"Scan",
    b"RandomNormalLike",
    b"Affine",
    b"MemcpyToHost",
    b"Identity",
    b"Relu\0",
    b"\xff",
    b"x",
    b"logits",
    b"images",
    b"w.bin",
    b"location",
    "駅".encode(),
)
EDGES = (0, 1, 2, 3, 7, 8, 10, 14, 19, 20, 21, 127, 128, 255, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63)


@dataclass
class Node:
    """One field: its tag, as it will be written, and a number, bytes, or the fields of a message."""

    number: int
    wire_type: int
    value: "int | bytes | list[Node]"
    kind: str = ""
    extra_tag_bits: int = 0
    padding: int = 0


Tree = list[Node]


def read_tree(content: bytes, kind: str = "Model") -> Tree:
    """Read a message as a careless reader would: without unknown fields. Raises ValueError, IndexError."""
    tree, position = [], 0
    while position < len(content):
        key, position = _read_varint(content, position)
        spec, wire_type, value = SCHEMA[kind].get(key >> 3), key & 7, b""
        if wire_type == VARINT:
            number, position = _read_varint(content, position)
        else:
            size = {FIXED32: 4, FIXED64: 8}.get(wire_type)
            if wire_type == LENGTH:
                size, position = _read_varint(content, position)
            if size is None or position + size > len(content):
                raise ValueError(f"field {key >> 3} has no end")
            value = content[position : position + size]
            position += size
        if spec and spec.type in SCHEMA:
            tree.append(Node(key >> 3, wire_type, read_tree(value, spec.type), spec.type))
        elif spec:
            tree.append(Node(key >> 3, wire_type, number if wire_type == VARINT else value))
    return tree


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        shift, position = shift + 7, position + 1
        if byte < 0x80:
            return value, position


def write_varint(value: int, padding: int = 0) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    if padding:
        encoded[-1] |= 0x80
        encoded += b"\x80" * (padding - 1) + b"\0"
    return bytes(encoded)


def write_tree(tree: Tree) -> bytes:
    parts = []
    for node in tree:
        parts.append(write_varint(node.number << 3 | node.wire_type | node.extra_tag_bits, node.padding & 3))
        if isinstance(node.value, int):
            parts.append(write_varint(node.value, node.padding >> 2))
            continue
        content = write_tree(node.value) if isinstance(node.value, list) else node.value
        if node.wire_type == LENGTH:
            parts.append(write_varint(len(content), node.padding >> 2))
        parts.append(content)
        if node.wire_type == START_GROUP:
            parts.append(write_varint(node.number << 3 | END_GROUP))
    return b"".join(parts)


def copy_tree(tree: Tree) -> Tree:
    return [
        Node(
            node.number,
            node.wire_type,
            copy_tree(node.value) if isinstance(node.value, list) else node.value,
            node.kind,
            node.extra_tag_bits,
            node.padding,
        )
        for node in tree
    ]


def _parents(tree: Tree) -> list[Tree]:
    """Every list of fields: the message itself and those below it."""
    lists = [tree]
    for siblings in lists:
        lists.extend(node.value for node in siblings if isinstance(node.value, list))
    return [siblings for siblings in lists if siblings]


def _message(number: int, content: bytes) -> Node:
    return Node(number, LENGTH, content)


def _external(rng: random.Random) -> Tree:
    """Fields that make a tensor external, whole or in part."""
    location = _message(13, b"\x0a\x08location\x12\x05w.bin")
    length = _message(13, b"\x0a\x06length\x12\x03192")
    fields = [location, length, Node(14, VARINT, rng.choice((0, 1, 1, 2, 1 << 32 | 1)))]
    return rng.sample(fields, rng.randint(1, 3))


def _additions(rng: random.Random) -> list[Node]:
    """Fields for anything that a checker must see; at the place of another kind of message they mean nothing."""
    relu = helper.make_node("Relu", ["logits"], [f"extra{rng.randint(0, 3)}"])
    operator = rng.choice(("Loop", "If", "RandomUniformLike", "Identity", "Gelu", "Affine", "Binarizer", "ZipMap"))
    named = helper.make_node(operator, ["logits"], ["y"], domain=rng.choice(("", "", "com.microsoft", "ai.onnx", ML)))
    graph = helper.make_graph([relu, named], "inner", [], [])
    function = helper.make_function("", "Relu", ["x"], ["y"], [relu], [helper.make_opsetid("", 20)])
    attribute = helper.make_attribute(rng.choice(("then_branch", "body", "to", "axis")), graph)
    return [
        _message(7, graph.SerializeToString()),
        _message(1, relu.SerializeToString()),
        _message(1, named.SerializeToString()),
        _message(5, attribute.SerializeToString()),
        _message(6, graph.SerializeToString()),
        _message(25, function.SerializeToString()),
        _message(20, b"\x0a\x00"),
        _message(8, b"\x0a\x0dcom.microsoft\x10\x01"),
        _message(8, b"\x0a\x0aai.onnx.ml\x10" + bytes([rng.randint(1, 6)])),
        _message(8, b"\x0a\x07ai.onnx\x10" + bytes([rng.randint(19, 21)])),
        _message(14, b"\x0a\x06author\x12\x02me"),
        _message(14, b"\x0a\x0aort_config\x12\x02{}"),
        _message(15, b"\x0a\x00"),
        _message(12, b"\x0a\x06pixels"),
        _message(21, b"to"),
        Node(rng.choice((1, 2, 3, 5, 14, 20)), VARINT, rng.choice(EDGES)),
    ]


def _change(rng: random.Random, tree: Tree) -> None:
    """Make one random change of a tree of fields, in place."""
    lists = _parents(tree)
    siblings = rng.choice(lists)
    at = rng.randrange(len(siblings))
    other = rng.choice(rng.choice(lists))
    match rng.randrange(3):
        case 0:
            _change_list(rng, siblings, at, other)
        case 1:
            _change_field(rng, siblings[at], other)
        case 2:
            tensors = [node for siblings in lists for node in siblings if node.kind == "Tensor"]
            if tensors and rng.random() < 0.2 and isinstance(value := rng.choice(tensors).value, list):
                value += _external(rng)
            else:
                addition = rng.choice(_additions(rng))
                addition.extra_tag_bits = rng.choice((0, 0, 0, 1 << 32, 1 << 36))
                siblings.insert(rng.choice((at, len(siblings))), addition)


def _change_list(rng: random.Random, siblings: Tree, at: int, other: Node) -> None:
    """Repeat, move, drop or reorder fields of one message."""
    node = siblings[at]
    match rng.randrange(5):
        case 0:
            siblings.insert(rng.randint(0, len(siblings)), *copy_tree([node]))
        case 1:
            siblings.insert(at, *copy_tree([other]))
        case 2:
            del siblings[at]
        case 3:
            rng.shuffle(siblings)
        case 4:
            siblings.append(Node(node.number, START_GROUP, node.value))


def _change_field(rng: random.Random, node: Node, other: Node) -> None:
    """Change the tag of a field, how it is written, or its value."""
    match rng.randrange(7):
        case 0:
            node.extra_tag_bits = 1 << rng.choice((32, 33, 35, 40, 63))
        case 1:
            node.padding = rng.randint(1, 15)
        case 2:
            node.number = rng.choice((0, 1, 2, 4, 5, 6, 7, 9, 13, 15, 20, 21, 25, 26, node.number + 1, (1 << 29) - 1))
        case 3:
            node.wire_type = rng.choice((VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32, 6, 7))
        case 4 if isinstance(node.value, int):
            node.wire_type, node.value = LENGTH, write_varint(node.value) * rng.randint(0, 2)
        case 5 if isinstance(node.value, list) and isinstance(other.value, list):
            node.value += copy_tree(other.value)
        case _ if isinstance(node.value, bytes):
            node.value = rng.choice(TEXTS)
        case _ if isinstance(node.value, int):
            node.value = rng.choice((node.value + 1, node.value | 1 << 32, node.value | 1 << 64, *EDGES))


def _change_bytes(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    changed, at = bytearray(content), rng.randrange(len(content))
    match rng.randrange(6):
        case 0:
            changed[at] ^= 1 << rng.randrange(8)
        case 1:
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 2:
            del changed[at : at + rng.randint(1, 20)]
        case 3:
            source = rng.choice((content, rng.choice(seeds)))
            start = rng.randrange(len(source))
            changed[at:at] = source[start : start + rng.randint(1, 60)]
        case 4:
            del changed[at:]
        case 5:
            changed += rng.choice(seeds)
    return bytes(changed)


def mutator(seeds: Sequence[bytes], seed: int) -> Callable[[], bytes]:
    """Return a function that makes the next changed file of a reproducible series."""
    rng = random.Random(seed)
    trees = [read_tree(content) for content in seeds]

    def mutate() -> bytes:
        chosen = rng.randrange(len(seeds))
        tree, content = copy_tree(trees[chosen]), seeds[chosen]
        if rng.random() < 0.75:
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                _change(rng, tree)
            content = write_tree(tree)
        if rng.random() < 0.3 and content:
            content = _change_bytes(rng, content, seeds)
        return content

    return mutate
