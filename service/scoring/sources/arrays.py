"""Tensors on disk: `.npy` (one array) and safetensors (every tensor with the same number of rows), a row a first index.

Rows are read as bytes where they lie; nothing is unpickled and nothing is mapped into memory, so a file that is cut
short is an error, not a crash.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128

from service.scoring.files import InputFile
from service.scoring.job import ScoringError
from service.scoring.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, Rows, Span, Want, tapered
from service.scoring.sources.stream import BLOCK_BYTES, Stream

MAX_HEADER_BYTES = 1 << 20
SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """Where a tensor's rows lie in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize


class ArraySource:
    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG002
        return tuple(_layout(file))

    def spans(self, file: InputFile, want: Want, *, shard_rows: int, last: bool) -> Iterator[Span]:
        wanted = {name: tensor for name, tensor in _layout(file).items() if name in want.columns}
        tensors = list(wanted.values())
        layout = json.dumps([(name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in wanted.items()]).encode()
        total = tensors[0].shape[0] if tensors else 0
        most = max(1, min(shard_rows, SHARD_BYTES // max(sum(tensor.row_bytes for tensor in tensors), 1)))
        streams = [Stream(file) for _ in tensors]
        first = 0
        while first < total:
            count = min(tapered(most, total - first) if last else most, total - first)
            digest = xxh3_128(layout)
            for stream, tensor in zip(streams, tensors, strict=True):
                stream.seek(tensor.offset + first * tensor.row_bytes)
                left = count * tensor.row_bytes
                while left:
                    part = stream.read_exactly(min(left, BLOCK_BYTES))
                    digest.update(part)
                    left -= len(part)
            yield Span(first_row=first, rows=count, start=first, stop=first + count, digest=digest.hexdigest())
            first += count
        for stream in streams:
            stream.close()

    def open(self, file: InputFile, want: Want) -> "ArrayReader":
        return ArrayReader(file, want)


class ArrayReader:
    def __init__(self, file: InputFile, want: Want) -> None:
        self._tensors = {name: tensor for name, tensor in _layout(file).items() if name in want.columns}
        self._streams = {name: Stream(file) for name in self._tensors}

    def read(self, span: Span) -> Iterator[Rows]:
        widest = max(sum(tensor.row_bytes for tensor in self._tensors.values()), 1)
        rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // widest))
        for first in range(span.start, span.stop, rows):
            count = min(rows, span.stop - first)
            columns = {name: self._slice(name, first, count) for name in self._tensors}
            yield Rows(numbers=range(first, first + count), columns=columns)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()

    def _slice(self, name: str, first: int, count: int) -> npt.NDArray[Any]:
        tensor, stream = self._tensors[name], self._streams[name]
        stream.seek(tensor.offset + first * tensor.row_bytes)
        content = stream.read_exactly(count * tensor.row_bytes)
        return np.frombuffer(content, tensor.dtype).reshape(count, *tensor.shape[1:])


def _layout(file: InputFile) -> dict[str, _Tensor]:
    stream = Stream(file)
    try:
        return _npy(stream) if file.format == "npy" else _safetensors(stream)
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise ScoringError(f"{file.name}: not a {file.format} file: {error}") from error
    finally:
        stream.close()


def _npy(stream: Stream) -> dict[str, _Tensor]:
    version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)  # type: ignore[arg-type]
    if fortran and len(shape) > 1:
        raise ValueError("the array is in Fortran order, expected C order (numpy.ascontiguousarray)")
    if dtype.hasobject or dtype.kind not in "biuf" or not shape:
        raise ValueError(f"expected an array of numbers with rows, got {dtype} {list(shape)}")
    return {"array": _Tensor(dtype=dtype, shape=shape, offset=stream.position)}


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
            raise ValueError(f"tensor {name!r} has {end - begin} bytes, its shape says otherwise")
        tensors[name] = tensor
    rows = {tensor.shape[0] for tensor in tensors.values() if tensor.shape}
    if len(rows) != 1:
        raise ValueError(f"expected tensors with one number of rows, got {sorted(rows)}")
    return {name: tensor for name, tensor in tensors.items() if tensor.shape}
