"""Converts the cells of a column, of CSV or Parquet for instance, to the items that the task code reads.

Invariant: an item is the value that a request would hold, or an array of its numbers; the task code checks its content.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

from service.errors import EkibenError
from service.scoring.input.rows import Column

Value = TypeVar("Value")
PNG, JPEG, JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"


def try_read(read: Callable[..., Value], *item: Any) -> Value | EkibenError:
    """Read an item; return the error if it cannot be read."""
    try:
        return read(*item)
    except EkibenError as error:
        return error


def reject_reason(error: EkibenError, column: str, row_pointer: str = "") -> str:
    """The reason to reject a row: the column, the place in the item (without `row_pointer`), and the fault itself."""
    if not error.faults:
        return f"{column}: {error.detail}"
    return f"{column}{error.faults[0].pointer.removeprefix(row_pointer)}: {error.faults[0].detail}"


def split_faults(
    results: Sequence[Value | EkibenError], unreadable: Mapping[int, str], column: str, *, numbered: bool = False
) -> tuple[list[Value], list[int], dict[int, str]]:
    """The items that were read, their indexes, and why the others are rejected.

    `unreadable` holds the faults of rows that could not be read from the file. With `numbered`, errors point to /INDEX.
    """
    errors = {i: result for i, result in enumerate(results) if isinstance(result, EkibenError)}
    faults = {i: reject_reason(error, column, f"/{i}" if numbered else "") for i, error in errors.items()}
    faults |= unreadable
    read = [(value, i) for i, value in enumerate(results) if i not in faults and not isinstance(value, EkibenError)]
    return [value for value, _ in read], [i for _, i in read], faults


def unwrap(column: Column) -> Column:
    """Remove what Arrow wraps values in: extension types, dictionaries, the struct of an encoded image."""
    if not isinstance(column, pa.Array):
        return column
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes") if column.null_count == 0 else pa.compute.struct_field(column, "bytes")
    return column


def to_python(column: Column) -> Sequence[Any]:
    """One Python value per row."""
    if isinstance(column, pa.Array):
        return column.to_pylist()
    return column.tolist() if isinstance(column, np.ndarray) else column


def pixel_block(column: Column, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """The column as uint8 [rows, *shape], without a copy; None if its layout differs or a row is null."""
    size = int(np.prod(shape))
    if isinstance(column, np.ndarray):
        matches = column.dtype == np.uint8 and (column.shape[1:] == shape or column.shape[1:] == (size,))
        return column.reshape(-1, *shape) if matches else None
    if not isinstance(column, pa.Array) or column.null_count:
        return None
    is_bytes = any(test(column.type) for test in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary))
    flat = _flat_bytes(column, size) if is_bytes else _flat_list(column, shape)
    return None if flat is None else flat.reshape(-1, *shape)


def series_arrays(column: Column, channels: int) -> Sequence[Any]:
    """One array [steps, channels] per row if the layout of the column allows it, else the values of the rows."""
    if isinstance(column, np.ndarray):
        return list(column)
    if not isinstance(column, pa.Array) or column.null_count or not _is_list(column.type):
        return to_python(column)
    steps, inner = _lengths(column), column.flatten()
    if not _is_list(inner.type) or inner.null_count or not types.is_floating(inner.type.value_type):
        return to_python(column)
    numbers = inner.flatten()
    if numbers.null_count or not (_lengths(inner) == channels).all():
        return to_python(column)
    table = numbers.to_numpy().reshape(-1, channels)
    return np.split(table, np.cumsum(steps)[:-1])


def pixels_from_bytes(item: Any, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """Raw pixels; None if the item is not bytes of this size, or is a PNG or JPEG file."""
    if not isinstance(item, bytes) or len(item) != int(np.prod(shape)) or item.startswith(PNG):
        return None
    if item.startswith(JPEG) and item.endswith(JPEG_END):
        return None
    return np.frombuffer(item, np.uint8).reshape(shape)


def _flat_bytes(column: pa.Array, size: int) -> npt.NDArray[np.uint8] | None:
    """The bytes of a column whose rows all have `size` bytes and are raw pixels."""
    if types.is_fixed_size_binary(column.type):
        content = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * size :][: len(column) * size]
        return content if column.type.byte_width == size else None
    wide = types.is_large_binary(column.type)
    offsets = np.frombuffer(column.buffers()[1], np.int64 if wide else np.int32)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    if not len(column) or not (np.diff(offsets) == size).all():
        return None
    block = np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(-1, size)
    if _starts_with(block, PNG).any() or (_starts_with(block, JPEG) & _starts_with(block[:, -2:], JPEG_END)).any():
        return None
    return block


def _starts_with(block: npt.NDArray[np.uint8], prefix: bytes) -> npt.NDArray[np.bool_]:
    """Whether each row of a block [rows, bytes] begins with the prefix."""
    if block.shape[1] < len(prefix):
        return np.zeros(len(block), np.bool_)
    matches: npt.NDArray[np.bool_] = (block[:, : len(prefix)] == np.frombuffer(prefix, np.uint8)).all(axis=1)
    return matches


def _flat_list(column: pa.Array, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """The values of a column of uint8 lists that are flat or nested as `shape` says."""
    list_shape: list[int] = []
    while _is_list(column.type):
        lengths = _lengths(column)
        if column.null_count or not len(lengths) or lengths.min() != lengths.max():
            return None
        list_shape.append(int(lengths[0]))
        column = column.flatten()
    if column.null_count or column.type != pa.uint8() or tuple(list_shape) not in {shape, (int(np.prod(shape)),)}:
        return None
    return column.to_numpy()


def _lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    if types.is_fixed_size_list(column.type):
        return np.full(len(column), column.type.list_size, np.int64)
    return np.diff(column.offsets.to_numpy()).astype(np.int64)


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
