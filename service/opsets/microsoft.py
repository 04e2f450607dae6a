"""The operator of the domain `com.microsoft` that is admitted: MatMulNBits, a product with weights of 4 or 8 bits.

Invariant: it has weights and scales in the file, of exactly the sizes that its attributes say, and no other inputs. Its
kernel computes each row by itself, so a row has the same bits beside any others, which export proves.
"""

from collections.abc import Mapping, Sequence

from service.onnx_wire import Message, data_type

MATMUL_NBITS = "MatMulNBits"
BITS = (4, 8)
BLOCK_SIZES = (16, 32, 64, 128, 256)
# 0 leaves the type of the computation to onnxruntime, 4 rounds the input to int8.
ACCURACY_LEVELS = (0, 1, 4)
MAX_AXIS = 1 << 20
INPUTS = ("input", "weights", "scales")


def check_name(label: str, operator: str) -> None:
    """Raise ValueError unless the operator is admitted."""
    if operator != MATMUL_NBITS:
        raise ValueError(f"{label} is of the operator domain 'com.microsoft', of which only {MATMUL_NBITS} is admitted")


def check_product(
    label: str, attributes: Mapping[str, Message], inputs: Sequence[str], initializers: Mapping[str, Message]
) -> None:
    """Raise ValueError unless the weights and scales of a product have the sizes that it declares."""
    names = {"K", "N", "bits", "block_size", "accuracy_level"}
    if unknown := sorted(set(attributes) - names):
        raise ValueError(f"{label} has the attribute {unknown[0][:80]!r}, expected {', '.join(sorted(names))}")
    width, height = (_number(label, attributes, name, range(1, MAX_AXIS + 1)) for name in ("K", "N"))
    bits = _number(label, attributes, "bits", BITS)
    block = _number(label, attributes, "block_size", BLOCK_SIZES)
    if "accuracy_level" in attributes:
        _number(label, attributes, "accuracy_level", ACCURACY_LEVELS)
    if len(inputs) != len(INPUTS):
        raise ValueError(f"{label} has {len(inputs)} inputs, expected {', '.join(INPUTS)}")
    num_blocks = -(-width // block)
    expected = {
        "weights": (inputs[1], "uint8", [height, num_blocks, block * bits // 8]),
        "scales": (inputs[2], "float32", [height, num_blocks]),
    }
    for role, (name, dtype, dims) in expected.items():
        tensor = initializers.get(name)
        if tensor is None:
            raise ValueError(f"{label}: the {role} {name[:80]!r} are no initializer")
        actual, actual_dims = data_type(tensor)[0], list(tensor.numbers("dims"))
        if (actual, actual_dims) != (dtype, dims):
            raise ValueError(f"{label}: the {role} are {actual} {actual_dims[:8]}, expected {dtype} {dims}")


def _number(label: str, attributes: Mapping[str, Message], name: str, allowed: Sequence[int]) -> int:
    value = attributes[name].number("i") if name in attributes else None
    if value is None or value not in allowed:
        listed = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise ValueError(f"{label}: {name!r} is {'missing' if value is None else value}, expected one of {listed}")
    return value
