"""Tensors of an ONNX file whose bytes lie in a data file beside it, and where they lie there.

Invariant: each byte of the data file has one meaning. Only initializers of the main graph lie there; in the order of
the graph, each begins at the next multiple of ALIGNMENT after the one before, and the file ends with the last one. A
reference that names another file, leaves its place open, or has another size than its axes and type need raises
ValueError.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from service.onnx_wire import Message, TensorInfo, data_type, read_model

# The beginning of a page: what is mapped into memory needs no copy.
ALIGNMENT = 4096
KEYS = ("length", "location", "offset")
NUMBER = re.compile("0|[1-9][0-9]{0,17}")
# The field `data_location` of a tensor in a data file.
EXTERNAL = 1
# Their bytes may hold values that their type does not have.
REFUSED_TYPES = ("bool",)
# Smaller tensors stay in the graph: they may be shapes, which are checked there.
MIN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ExternalTensor(TensorInfo):
    """A tensor of a data file: its bytes are `data[offset : offset + size]` of the file `location`."""

    location: str


def external_tensors(content: bytes) -> list[ExternalTensor]:
    """Return the tensors in data files of an ONNX file, in the order of the graph. Raises ValueError."""
    return list(_initializers(read_model(content)))


def is_external(tensor: Message) -> bool:
    """Return whether a Tensor says that its bytes lie in a data file."""
    return tensor.number("data_location") == EXTERNAL or bool(tensor.messages("external_data"))


def check_external(model: Message, sizes: Mapping[str, int]) -> None:
    """Raise ValueError unless the graph accounts for every byte of its data files, whose sizes are given by name."""
    num_references = sum(1 for message in model.walk() if message.kind == "Tensor" and is_external(message))
    used_bytes = dict.fromkeys(sizes, 0)
    num_initializers = 0
    for tensor in _initializers(model):
        num_initializers += 1
        label = f"tensor {tensor.name[:80]!r}"
        if tensor.location not in sizes:
            raise ValueError(
                f"{label} refers to external data in {tensor.location[:80]!r}, expected a data file that the manifest "
                f"lists: {', '.join(sizes) or 'there is none'}"
            )
        first = used_bytes[tensor.location] + -used_bytes[tensor.location] % ALIGNMENT
        if tensor.offset != first:
            raise ValueError(f"{label} begins at byte {tensor.offset} of {tensor.location}, expected {first}")
        used_bytes[tensor.location] = first + tensor.size
    if num_references > num_initializers:
        raise ValueError("it refers to external data outside the initializers of its main graph")
    for name, size in sizes.items():
        if used_bytes[name] != size:
            raise ValueError(f"{name} has {size} bytes, but the tensors of the graph end at byte {used_bytes[name]}")


def _initializers(model: Message) -> Iterator[ExternalTensor]:
    for graph in model.messages("graph"):
        for tensor in graph.messages("initializer"):
            if is_external(tensor):
                yield _read(tensor)


def _read(tensor: Message) -> ExternalTensor:
    label = f"tensor {tensor.text('name')[:80]!r}"
    entries = [(entry.text("key"), entry.text("value")) for entry in tensor.messages("external_data")]
    if tuple(sorted(key for key, _ in entries)) != KEYS or tensor.number("data_location") != EXTERNAL:
        keys = sorted(key[:80] for key, _ in entries)[:8]
        raise ValueError(f"{label} has external data with the keys {keys}, expected {', '.join(KEYS)}, once each")
    if extra := sorted(field for field in tensor.values if field.endswith("_data") and field != "external_data"):
        raise ValueError(f"{label} has external data and also {', '.join(extra)}")
    values = dict(entries)
    for key in ("length", "offset"):
        if not NUMBER.fullmatch(values[key]):
            raise ValueError(f"{label} has the {key} {values[key][:80]!r}, expected a decimal number")
    (dtype, item_bytes), dims = data_type(tensor), tuple(tensor.numbers("dims"))
    length, described = int(values["length"]), f"{dtype} {list(dims[:20])}"
    if dtype in REFUSED_TYPES or any(size < 1 for size in dims) or length != prod(dims) * item_bytes:
        raise ValueError(f"{label} is {described}, but its external data has {length} bytes")
    if length < MIN_BYTES:
        raise ValueError(f"{label} has {length} bytes of external data, expected {MIN_BYTES} or more")
    return ExternalTensor(tensor.text("name"), dtype, dims, int(values["offset"]), length, values["location"])
