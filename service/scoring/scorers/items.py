"""Columns of a file to the items that the task code reads.

Invariant: an item is what it would be in a request to the service, or an array of exactly the numbers that it would
hold there; every check of its content is the task code's own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.errors import EkibenError
from service.scoring.rows import Column

Value = TypeVar("Value")
PNG, JPEG, JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"


def each(read: Callable[[Any], Value], items: Sequence[Any]) -> list[Value | EkibenError]:
    """Read every item; one that cannot be read is its error."""
    return [attempt(read, item) for item in items]


def attempt(read: Callable[[Any], Value], item: Any) -> Value | EkibenError:
    try:
        return read(item)
    except EkibenError as error:
        return error


def reason(error: EkibenError, column: str, where: str = "") -> str:
    """Why a row was rejected: its column, the place in it (`where` is the row's own), what was expected and came."""
    if not error.faults:
        return f"{column}: {error.detail}"
    return f"{column}{error.faults[0].pointer.removeprefix(where)}: {error.faults[0].detail}"


def split(
    found: Sequence[Value | EkibenError], skipped: Mapping[int, str], column: str, *, numbered: bool = False
) -> tuple[list[int], dict[int, str]]:
    """The indexes of what could be read, and why the rest could not; `numbered`: errors point at /INDEX."""
    faults = dict(skipped)
    for i, value in enumerate(found):
        if i not in faults and isinstance(value, EkibenError):
            faults[i] = reason(value, column, f"/{i}" if numbered else "")
    return [i for i in range(len(found)) if i not in faults], faults


def plain(column: Column) -> Column:
    """Without the wrappings of Arrow: extension types, dictionaries, the struct of an encoded picture."""
    if not isinstance(column, pa.Array):
        return column
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes") if column.null_count == 0 else pa.compute.struct_field(column, "bytes")
    return column


def values(column: Column) -> Sequence[Any]:
    """Python values, one a row."""
    if isinstance(column, pa.Array):
        return column.to_pylist()
    return column.tolist() if isinstance(column, np.ndarray) else column


def pixel_block(column: Column, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """The whole column as uint8 [rows, *shape] without a copy, if it is laid out so and no row lacks; else None."""
    size = int(np.prod(shape))
    if isinstance(column, np.ndarray):
        fits = column.dtype == np.uint8 and (column.shape[1:] == shape or column.shape[1:] == (size,))
        return column.reshape(-1, *shape) if fits else None
    if not isinstance(column, pa.Array) or column.null_count:
        return None
    flat = _flat_bytes(column, size) if _is_bytes(column.type) else _flat_list(column, shape)
    return None if flat is None else flat.reshape(-1, *shape)


def series_rows(column: Column, channels: int) -> Sequence[Any]:
    """One [steps, channels] array a row where the layout allows it, else whatever the rows hold."""
    if isinstance(column, np.ndarray):
        return list(column)
    if not isinstance(column, pa.Array) or column.null_count or not _is_list(column.type):
        return values(column)
    steps, inner = _lengths(column), column.flatten()
    if not _is_list(inner.type) or inner.null_count or not pa.types.is_floating(inner.type.value_type):
        return values(column)
    numbers = inner.flatten()
    if numbers.null_count or not (_lengths(inner) == channels).all():
        return values(column)
    table = numbers.to_numpy().reshape(-1, channels)
    return np.split(table, np.cumsum(steps)[:-1])


def raw_pixels(item: Any, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """Bytes that are pixels, neither a PNG nor a JPEG."""
    if not isinstance(item, bytes) or len(item) != int(np.prod(shape)) or item.startswith(PNG):
        return None
    if item.startswith(JPEG) and item.endswith(JPEG_END):
        return None
    return np.frombuffer(item, np.uint8).reshape(shape)


def _flat_bytes(column: pa.Array, size: int) -> npt.NDArray[np.uint8] | None:
    if pa.types.is_fixed_size_binary(column.type):
        if column.type.byte_width != size:
            return None
        content = np.frombuffer(column.buffers()[1], np.uint8)
        return content[column.offset * size : (column.offset + len(column)) * size]
    wide = pa.types.is_large_binary(column.type)
    offsets = np.frombuffer(column.buffers()[1], np.int64 if wide else np.int32)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    if not len(column) or not (np.diff(offsets) == size).all():
        return None
    block = np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(-1, size)
    if _begins(block, PNG).any() or (_begins(block, JPEG) & _begins(block[:, -2:], JPEG_END)).any():
        return None
    return block


def _begins(block: npt.NDArray[np.uint8], mark: bytes) -> npt.NDArray[np.bool_]:
    if block.shape[1] < len(mark):
        return np.zeros(len(block), np.bool_)
    found: npt.NDArray[np.bool_] = (block[:, : len(mark)] == np.frombuffer(mark, np.uint8)).all(axis=1)
    return found


def _flat_list(column: pa.Array, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """Lists of uint8, nested as `shape` says or flat."""
    found: list[int] = []
    while _is_list(column.type):
        lengths = _lengths(column)
        if column.null_count or not len(lengths) or lengths.min() != lengths.max():
            return None
        found.append(int(lengths[0]))
        column = column.flatten()
    if column.null_count or column.type != pa.uint8() or tuple(found) not in {shape, (int(np.prod(shape)),)}:
        return None
    return column.to_numpy()


def _lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    if pa.types.is_fixed_size_list(column.type):
        return np.full(len(column), column.type.list_size, np.int64)
    return np.diff(column.offsets.to_numpy()).astype(np.int64)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))
