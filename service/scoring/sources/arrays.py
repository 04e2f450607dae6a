"""Tensors on disk: `.npy` and IDX (one array), safetensors (tensors with equal numbers of rows). A row is an index.

Rows are read when needed. Nothing is unpickled or mapped into memory, so a truncated file is an error, not a crash.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from xxhash import xxh3_128

from service.scoring.input.files import InputFile
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, ReadSpec, Rows, Span
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.stream import BLOCK_BYTES, Stream

MAX_HEADER_BYTES = 1 << 20
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# Wider numbers are of the machine that wrote them.
MAX_ITEM_BYTES = 8
SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """The type, shape and byte offset of a tensor in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def row_type(self) -> pa.DataType:
        """The type of a row: a number, or nested lists of fixed sizes."""
        kind = pa.from_numpy_dtype(self.dtype.newbyteorder("="))
        for size in reversed(self.shape[1:]):
            kind = pa.list_(kind, size)
        return kind


class ArraySource:
    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        self._tensors = {name: tensor for name, tensor in _tensors(file).items() if name in spec.columns}
        self._streams = {name: Stream(file) for name in self._tensors}
        self._has_one_array = file.format != "safetensors"
        self._row_bytes = max(sum(tensor.row_bytes for tensor in self._tensors.values()), 1)

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG004
        return pa.schema([(name, tensor.row_type) for name, tensor in _tensors(file).items()])

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        layout = json.dumps([(name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in self._tensors.items()])
        total = max((tensor.shape[0] for tensor in self._tensors.values()), default=0)
        rows = max(1, min(shard_rows, SHARD_BYTES // self._row_bytes))
        for first in range(0, total, rows):
            count = min(rows, total - first)
            digest = xxh3_128(layout.encode())
            for name, tensor in self._tensors.items():
                stream = self._stream_at(name, first)
                for left in range(count * tensor.row_bytes, 0, -BLOCK_BYTES):
                    digest.update(stream.read_exactly(min(left, BLOCK_BYTES)))
            yield Span(first_row=first, rows=count, start=first, stop=first + count, digest=digest.hexdigest())
        if self._has_one_array:
            self._check_end()

    def read(self, span: Span) -> Iterator[Rows]:
        rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // self._row_bytes))
        for first in range(span.start, span.stop, rows):
            count = min(rows, span.stop - first)
            columns = {name: self._read_column(name, first, count) for name in self._tensors}
            yield Rows(numbers=range(first, first + count), columns=columns)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()

    def _check_end(self) -> None:
        """Raise ValueError if more follows the array, such as another one, whose rows would be left out."""
        for name, tensor in self._tensors.items():
            if self._stream_at(name, tensor.shape[0]).read(1):
                raise ValueError("there are bytes behind the array: expected one array in a file")

    def _stream_at(self, name: str, row: int) -> Stream:
        stream = self._streams[name]
        stream.seek(self._tensors[name].offset + row * self._tensors[name].row_bytes)
        return stream

    def _read_column(self, name: str, first: int, count: int) -> npt.NDArray[Any]:
        tensor = self._tensors[name]
        content = self._stream_at(name, first).read_exactly(count * tensor.row_bytes)
        rows = np.frombuffer(content, tensor.dtype).reshape(count, *tensor.shape[1:])
        return rows.astype(tensor.dtype.newbyteorder("="), copy=False)


def _tensors(file: InputFile) -> dict[str, _Tensor]:
    with closing(Stream(file)) as stream:
        try:
            return READERS[file.format](stream)
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise ScoringError(f"{file.name}: not a {file.format} file: {error}") from error


def _npy(stream: Stream) -> dict[str, _Tensor]:
    version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)  # type: ignore[arg-type]
    if fortran and len(shape) > 1:
        raise ValueError("the array is in Fortran order, expected C order (numpy.ascontiguousarray)")
    if dtype.hasobject or dtype.kind not in "biuf" or dtype.itemsize > MAX_ITEM_BYTES or not shape:
        raise ValueError(f"expected an array of numbers with rows, got {dtype} {list(shape)}")
    return {"array": _Tensor(dtype=dtype, shape=shape, offset=stream.position)}


def _idx(stream: Stream) -> dict[str, _Tensor]:
    """The format of the MNIST files: two zeros, a type, the number of axes, and their sizes, all big-endian."""
    zeros, kind, num_axes = stream.read_exactly(2), stream.read_exactly(1)[0], stream.read_exactly(1)[0]
    if zeros != bytes(2) or kind not in IDX_TYPES or not num_axes:
        raise ValueError(
            f"expected two zero bytes, a known type and axes, got {(zeros + bytes([kind, num_axes])).hex()}"
        )
    shape = tuple(int.from_bytes(stream.read_exactly(4), "big") for _ in range(num_axes))
    return {"array": _Tensor(dtype=np.dtype(IDX_TYPES[kind]), shape=shape, offset=stream.position)}


def _safetensors(stream: Stream) -> dict[str, _Tensor]:
    size = int.from_bytes(stream.read_exactly(8), "little")
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {size} bytes, expected at most {MAX_HEADER_BYTES}")
    entries = json.loads(stream.read_exactly(size))
    entries.pop("__metadata__", None)
    tensors = {}
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        tensor = _Tensor(
            dtype=np.dtype(SAFETENSORS[entry["dtype"]]), shape=tuple(entry["shape"]), offset=8 + size + begin
        )
        if tensor.shape and end - begin != tensor.shape[0] * tensor.row_bytes:
            raise ValueError(f"tensor {name!r} has {end - begin} bytes, which does not match its shape")
        tensors[name] = tensor
    rows = {tensor.shape[0] for tensor in tensors.values() if tensor.shape}
    if len(rows) != 1:
        raise ValueError(f"expected tensors with one number of rows, got {sorted(rows)}")
    return {name: tensor for name, tensor in tensors.items() if tensor.shape}


READERS = {"npy": _npy, "idx": _idx, "safetensors": _safetensors}
