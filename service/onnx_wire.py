"""A strict reader of ONNX files that needs neither the `onnx` package nor onnxruntime.

Invariant: a file that is read has one meaning for every protobuf reader. The schema is that of onnx.proto; unknown
fields, unknown values of an enumeration, a singular field that comes twice, two members of a oneof, numbers that are
longer than necessary or than their type, and text that is not UTF-8 raise ValueError. So does a file that is nested too
deep or has too many fields: malicious bytes take a second at most. The bytes of weights are not read.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

# A 50-layer model has about 20,000 fields.
MAX_FIELDS = 200_000
# The numbers and texts of lists: a forest of 350,000 nodes.
MAX_VALUES = 4_000_000
# Levels of nested messages; each If or Loop adds four.
MAX_DEPTH = 64

# Each message: number, name and type of its fields. `*` marks a repeated field; the members of a oneof share a `|`.
_PROTO = """
Model: 1 ir_version int64, 2 producer_name string, 3 producer_version string, 4 domain string, 5 model_version int64,
  6 doc_string string, 7 graph Graph, 8 opset_import OperatorSetId*, 14 metadata_props StringStringEntry*,
  20 training_info TrainingInfo*, 25 functions Function*, 26 configuration DeviceConfiguration*
Graph: 1 node Node*, 2 name string, 5 initializer Tensor*, 10 doc_string string, 11 input ValueInfo*,
  12 output ValueInfo*, 13 value_info ValueInfo*, 14 quantization_annotation TensorAnnotation*,
  15 sparse_initializer SparseTensor*, 16 metadata_props StringStringEntry*
Node: 1 input string*, 2 output string*, 3 name string, 4 op_type string, 5 attribute Attribute*, 6 doc_string string,
  7 domain string, 8 overload string, 9 metadata_props StringStringEntry*,
  10 device_configurations NodeDeviceConfiguration*
Attribute: 1 name string, 2 f float, 3 i int64, 4 s bytes, 5 t Tensor, 6 g Graph, 7 floats float*, 8 ints int64*,
  9 strings bytes*, 10 tensors Tensor*, 11 graphs Graph*, 13 doc_string string, 14 tp Type, 15 type_protos Type*,
  20 type enum14, 21 ref_attr_name string, 22 sparse_tensor SparseTensor, 23 sparse_tensors SparseTensor*
Tensor: 1 dims int64*, 2 data_type int32, 3 segment Segment, 4 float_data float*, 5 int32_data int32*,
  6 string_data bytes*, 7 int64_data int64*, 8 name string, 9 raw_data bytes, 10 double_data double*,
  11 uint64_data uint64*, 12 doc_string string, 13 external_data StringStringEntry*, 14 data_location enum1,
  16 metadata_props StringStringEntry*
Segment: 1 begin int64, 2 end int64
SparseTensor: 1 values Tensor, 2 indices Tensor, 3 dims int64*
ValueInfo: 1 name string, 2 type Type, 3 doc_string string, 4 metadata_props StringStringEntry*
Type: 1 tensor_type TensorType|, 4 sequence_type ElementType|, 5 map_type MapType|, 6 denotation string,
  7 opaque_type OpaqueType|, 8 sparse_tensor_type TensorType|, 9 optional_type ElementType|
TensorType: 1 elem_type int32, 2 shape TensorShape
ElementType: 1 elem_type Type
MapType: 1 key_type int32, 2 value_type Type
OpaqueType: 1 domain string, 2 name string
TensorShape: 1 dim Dimension*
Dimension: 1 dim_value int64|, 2 dim_param string|, 3 denotation string
OperatorSetId: 1 domain string, 2 version int64
StringStringEntry: 1 key string, 2 value string
TensorAnnotation: 1 tensor_name string, 2 quant_parameter_tensor_names StringStringEntry*
TrainingInfo: 1 initialization Graph, 2 algorithm Graph, 3 initialization_binding StringStringEntry*,
  4 update_binding StringStringEntry*
Function: 1 name string, 4 input string*, 5 output string*, 6 attribute string*, 7 node Node*, 8 doc_string string,
  9 opset_import OperatorSetId*, 10 domain string, 11 attribute_proto Attribute*, 12 value_info ValueInfo*,
  13 overload string, 14 metadata_props StringStringEntry*
DeviceConfiguration: 1 name string, 2 num_devices int32, 3 device string*
NodeDeviceConfiguration: 1 configuration_id string, 2 sharding_spec ShardingSpec*, 3 pipeline_stage int32
ShardingSpec: 1 tensor_name string, 2 device int64*, 3 index_to_device_group_map IntIntListEntry*,
  4 sharded_dim ShardedDim*
IntIntListEntry: 1 key int64, 2 value int64*
ShardedDim: 1 axis int64, 2 simple_sharding SimpleShardedDim*
SimpleShardedDim: 1 dim_value int64|, 2 dim_param string|, 3 num_shards int64
"""
# The smallest and the largest number of each type that is a varint; an enumeration has no negative values.
_VARINTS = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint64": (0, (1 << 64) - 1),
    "enum1": (0, 1),
    "enum14": (0, 14),
}
_FIXED = {"float": struct.Struct("<f"), "double": struct.Struct("<d")}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = dict.fromkeys(_VARINTS, _VARINT) | {"float": _FIXED32, "double": _FIXED64}

# The ONNX data types of whole bytes, except complex numbers: name and size of an element, 0 for strings.
DATA_TYPES = {
    1: ("float32", 4),
    2: ("uint8", 1),
    3: ("int8", 1),
    4: ("uint16", 2),
    5: ("int16", 2),
    6: ("int32", 4),
    7: ("int64", 8),
    8: ("string", 0),
    9: ("bool", 1),
    10: ("float16", 2),
    11: ("float64", 8),
    12: ("uint32", 4),
    13: ("uint64", 8),
    16: ("bfloat16", 2),
}


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of a message type. `wire_type` is that of one value; a list of numbers may also be packed."""

    name: str
    type: str
    wire_type: int
    repeated: bool
    oneof: bool


def _parse_schema(proto: str) -> dict[str, dict[int, FieldSpec]]:
    schema: dict[str, dict[int, FieldSpec]] = {}
    for line in proto.strip().replace("\n ", " ").splitlines():
        message, _, fields = line.partition(": ")
        schema[message] = {}
        for text in fields.split(", "):
            number, name, kind = text.split()
            bare = kind.rstrip("*|")
            wire_type = _WIRE_TYPES.get(bare, _LENGTH)
            schema[message][int(number)] = FieldSpec(name, bare, wire_type, kind[-1] == "*", kind[-1] == "|")
    return schema


SCHEMA = _parse_schema(_PROTO)


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of one message that are present, by name; of each the values in order.

    A value is an int, a float, a str, a Message, or for a field of bytes the slice of the file that holds them.
    """

    kind: str
    values: dict[str, list[object]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def number(self, name: str, default: int = 0) -> int:
        value = self.values.get(name, (default,))[0]
        assert isinstance(value, int)
        return value

    def text(self, name: str) -> str:
        value = self.values.get(name, ("",))[0]
        assert isinstance(value, str)
        return value

    def numbers(self, name: str) -> list[int]:
        return [value for value in self.values.get(name, ()) if isinstance(value, int)]

    def texts(self, name: str) -> list[str]:
        return [value for value in self.values.get(name, ()) if isinstance(value, str)]

    def messages(self, name: str) -> list["Message"]:
        return [value for value in self.values.get(name, ()) if isinstance(value, Message)]

    def span(self, name: str) -> slice | None:
        value = self.values.get(name, (None,))[0]
        assert value is None or isinstance(value, slice)
        return value

    def walk(self) -> Iterator["Message"]:
        """Yield this message and every message below it."""
        pending = [self]
        while pending:
            message = pending.pop()
            yield message
            for values in message.values.values():
                pending.extend(value for value in values if isinstance(value, Message))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file; its bytes are `content[offset : offset + size]`, or size is 0 if they are not raw.

    `dtype` is a name of DATA_TYPES. A tensor inside an attribute may have no name.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    offset: int
    size: int


def read_tensors(content: bytes) -> Iterator[TensorInfo]:
    """Yield every tensor of a file, those of attributes and subgraphs included. Raises ValueError."""
    for message in read_model(content).walk():
        if message.kind == "Tensor":
            dtype, _ = data_type(message)
            raw = message.span("raw_data") or slice(0, 0)
            dims = tuple(message.numbers("dims"))
            yield TensorInfo(message.text("name"), dtype, dims, raw.start, raw.stop - raw.start)


def data_type(tensor: Message) -> tuple[str, int]:
    """Return the name and the size in bytes of one element. Raises ValueError for complex numbers and the like."""
    number = tensor.number("data_type")
    if number not in DATA_TYPES:
        raise ValueError(
            f"tensor {tensor.text('name')!r} has data type {number}, expected strings or numbers of whole bytes"
        )
    return DATA_TYPES[number]


def read_model(content: bytes) -> Message:
    """Return the Model that the bytes hold, with every message below it. Raises ValueError."""
    # With this mark, onnxruntime may load the bytes in a format of its own.
    if content[4:8] == b"ORTM":
        raise ValueError("it is also a FlatBuffer in the format of onnxruntime")
    reader, model = _Reader(content), Message("Model")
    pending = [(model, 0, len(content), 0)]
    while pending:
        message, start, stop, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"messages are nested more than {MAX_DEPTH} deep")
        for inner, span in reader.read_fields(message, start, stop):
            pending.append((inner, span.start, span.stop, depth + 1))
    return model


@cache
def _list_pattern(tag: bytes, wire_type: int) -> re.Pattern[bytes]:
    """Match up to 65,536 numbers of a list, each behind the tag. It never backtracks, so its time is linear."""
    number = {_FIXED32: b".{4}", _FIXED64: b".{8}"}.get(wire_type, rb"[\x80-\xff]{0,9}+[\0-\x7f]")
    return re.compile(b"(?:%b%b){1,65536}+" % (re.escape(tag), number), re.DOTALL)


@cache
def _varint_pattern(tag: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"%b([\x80-\xff]{0,9}+[\0-\x7f])" % re.escape(tag), re.DOTALL)


class _Reader:
    """Reads one message after the other from the same bytes, and counts their fields and the values of their lists."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.num_fields = 0
        self.num_values = 0
        # The varints of lists that were checked, by type and bytes.
        self.varints: dict[tuple[str, bytes], int] = {}

    def read_fields(self, message: Message, position: int, stop: int) -> list[tuple[Message, slice]]:
        """Put the fields between two positions into the message; return those that are messages and their bytes."""
        kind, values = message.kind, message.values
        nested, oneof = [], ""
        while position < stop:
            self._count_field()
            first = position
            key, position = self._varint(position, stop)
            spec, wire_type = self._spec_of(message, key, position), key & 7
            if spec.oneof:
                if oneof:
                    raise ValueError(f"{kind} has field {spec.name!r} beside {oneof!r} (before byte {position})")
                oneof = spec.name
            stored = values.setdefault(spec.name, [])
            if wire_type == spec.wire_type == _LENGTH:
                span = self._payload(position, stop)
                position = span.stop
                stored.append(value := self._content_of(spec, kind, span))
                if isinstance(value, Message):
                    nested.append((value, span))
                elif spec.repeated and spec.type == "bytes":
                    position = self._short_texts(key, stored, position, stop)
            elif wire_type == spec.wire_type:
                tag = self.content[first:position]
                numbers, position = self._numbers(spec, kind, tag, first, stop)
                stored += numbers
            elif wire_type == _LENGTH and spec.repeated:
                span = self._payload(position, stop)
                position = span.start
                while position < span.stop:
                    numbers, position = self._numbers(spec, kind, b"", position, span.stop)
                    stored += numbers
            else:
                raise ValueError(f"{kind} field {spec.name!r} has wire type {wire_type} (before byte {position})")
        return nested

    def _spec_of(self, message: Message, key: int, position: int) -> FieldSpec:
        """Return the field of a message that a tag names. Raises ValueError if there is none, or it may not repeat."""
        # Some readers cut the rest of such a tag off and see another field.
        if key >> 32:
            raise ValueError(f"a tag has more than 32 bits (before byte {position})")
        spec = SCHEMA[message.kind].get(key >> 3)
        if spec is None:
            raise ValueError(f"{message.kind} has no field {key >> 3} (before byte {position})")
        if spec.name in message and not spec.repeated:
            raise ValueError(f"{message.kind} has field {spec.name!r} twice (before byte {position})")
        return spec

    def _count_field(self) -> None:
        self.num_fields += 1
        if self.num_fields > MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS} fields; weights belong into raw_data")

    def _count_values(self, number: int) -> None:
        self.num_values += number
        if self.num_values > MAX_VALUES:
            raise ValueError(f"its lists have more than {MAX_VALUES} values; weights belong into raw_data")

    def _numbers(
        self, spec: FieldSpec, kind: str, tag: bytes, position: int, stop: int
    ) -> tuple[Sequence[int | float], int]:
        """Return the numbers from `position` on, each behind this tag, and the position after them."""
        found = _list_pattern(tag, spec.wire_type).match(self.content, position, stop) if spec.repeated else None
        if not found:
            # Of a list, reading one number says why there is none.
            number, position = self._number(spec, kind, position + len(tag), stop)
            return [number], position
        if fixed := _FIXED.get(spec.type):
            self._count_values((found.end() - position) // (len(tag) + fixed.size))
            pairs = struct.iter_unpack(f"<{len(tag)}x{fixed.format[1:]}", self.content[position : found.end()])
            return [number for (number,) in pairs], found.end()
        varints, numbers = _varint_pattern(tag).findall(self.content, position, found.end()), []
        self._count_values(len(varints))
        for varint in varints:
            position += len(tag) + len(varint)
            key = spec.type, varint
            if key not in self.varints:
                self.varints[key] = int(self._number(spec, kind, position - len(varint), stop)[0])
            numbers.append(self.varints[key])
        return numbers, position

    def _short_texts(self, tag: int, stored: list[object], position: int, stop: int) -> int:
        """Append the texts of less than 128 bytes from `position` on that have this tag; return the position after."""
        content, before = self.content, len(stored)
        while position + 2 <= stop and content[position] == tag and content[position + 1] < 0x80:
            end = position + 2 + content[position + 1]
            if end > stop:
                break
            stored.append(slice(position + 2, end))
            position = end
        self._count_values(len(stored) - before)
        return position

    def _payload(self, position: int, stop: int) -> slice:
        """Return where the bytes of a field lie whose length is at `position`."""
        size, start = self._varint(position, stop)
        if size > stop - start:
            raise ValueError(f"truncated: a field has {size} bytes, but only {stop - start} remain at byte {start}")
        return slice(start, start + size)

    def _content_of(self, spec: FieldSpec, kind: str, span: slice) -> Message | str | slice:
        if spec.type == "bytes":
            return span
        if spec.type != "string":
            return Message(spec.type)
        try:
            text = str(self.content[span], "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{kind} field {spec.name!r} is not UTF-8 (at byte {span.start})") from error
        # An interface in C would end such a name early.
        if "\0" in text:
            raise ValueError(f"{kind} field {spec.name!r} holds a NUL character (at byte {span.start})")
        return text

    def _number(self, spec: FieldSpec, kind: str, position: int, stop: int) -> tuple[int | float, int]:
        """Return the number of this type at `position`, and the position after it."""
        if fixed := _FIXED.get(spec.type):
            end = position + fixed.size
            if end > stop:
                raise ValueError(f"truncated inside a number at byte {position}")
            return fixed.unpack_from(self.content, position)[0], end
        value, end = self._varint(position, stop)
        low, high = _VARINTS[spec.type]
        # Negative numbers are stored as 64 bits in two's complement.
        value -= (low < 0 and value >> 63) << 64
        if not low <= value <= high:
            raise ValueError(f"{kind} field {spec.name!r} is {value}, expected {low} to {high} (before byte {end})")
        return value, end

    def _varint(self, position: int, stop: int) -> tuple[int, int]:
        """Return the number at `position`, which has at most ten bytes, and the position after it."""
        if position < stop and (value := self.content[position]) < 0x80:
            return value, position + 1
        value = 0
        for shift in range(0, 70, 7):
            if position >= stop:
                raise ValueError(f"truncated inside a number at byte {position}")
            byte = self.content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if not byte and shift:
                    raise ValueError(f"a number is longer than necessary (before byte {position})")
                return value, position
        raise ValueError(f"a number has more than ten bytes (before byte {position})")
