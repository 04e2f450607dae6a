"""Tensors of graphs as manifests declare them: name, dtype and axes.

Manifests and clients have the batch axis anywhere or nowhere. The engine, the golden cases and the gates of export have
it first: a tensor without one is a batch of one row.
"""

from functools import partial
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Dtype = Literal[
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "string",
]
FLOATS = frozenset({"float16", "float32", "float64"})
# Texts are arrays of objects: a dtype of fixed width would cut them and drop zero characters at their ends.
NUMPY_DTYPES: dict[Dtype, np.dtype[Any]] = {name: np.dtype(name) for name in get_args(Dtype) if name != "string"}
NUMPY_DTYPES["string"] = np.dtype(object)
BATCH = "batch"
Axes = tuple[int | str, ...]
Size = Annotated[int, Field(ge=1, le=1 << 24)]


class FrozenModel(BaseModel):
    """An immutable value that rejects unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(FrozenModel):
    """A graph input or output; a fixed axis is a size, a variable axis a name ("batch", "steps", "past", "height")."""

    name: str
    dtype: Dtype
    shape: Axes

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return NUMPY_DTYPES[self.dtype]

    @property
    def row_shape(self) -> Axes:
        """The axes of one row: all but the batch axis."""
        return tuple(axis for axis in self.shape if axis != BATCH)


Specs = tuple[TensorSpec, ...]


def tensor(dtype: Dtype, name: str, *shape: int | str) -> TensorSpec:
    """Return the spec of a tensor of these axes."""
    return TensorSpec(name=name, dtype=dtype, shape=shape)


uint8, int64, float32 = partial(tensor, "uint8"), partial(tensor, "int64"), partial(tensor, "float32")


def to_rows(value: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    """Return a tensor of the declared axes with the batch axis first."""
    if spec.shape[:1] == (BATCH,):
        return value
    return np.moveaxis(value, spec.shape.index(BATCH), 0) if BATCH in spec.shape else value[None]


def from_rows(value: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    """Return a tensor whose batch axis is first with its declared axes: the inverse of `to_rows`."""
    if spec.shape[:1] == (BATCH,):
        return value
    return np.moveaxis(value, 0, spec.shape.index(BATCH)) if BATCH in spec.shape else value[0]


def has_rows_first(specs: Specs) -> bool:
    """Tell whether the batch axis of every tensor is declared first."""
    return all(spec.shape[:1] == (BATCH,) for spec in specs)


def pack_texts(texts: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return texts as uint8 with one more axis: 4 bytes of little-endian length, then UTF-8, padded with zeros."""
    rows = [len(content).to_bytes(4, "little") + content for content in (text.encode() for text in texts.ravel())]
    width = max(map(len, rows), default=4)
    flat = np.frombuffer(b"".join(row.ljust(width, b"\0") for row in rows), np.uint8)
    return flat.reshape(*texts.shape, width)


def unpack_texts(packed: npt.NDArray[Any], key: str) -> npt.NDArray[Any]:
    """Return the texts that `pack_texts` packed. Raises ValueError that names the key."""
    if packed.dtype != np.uint8 or not packed.ndim or packed.shape[-1] < 4:
        raise ValueError(f"{key} is {packed.dtype} {list(packed.shape)}, expected texts packed as uint8")
    texts = np.empty(packed.shape[:-1], object)
    flat = packed.reshape(-1, packed.shape[-1])
    for i, row in enumerate(flat):
        length = int.from_bytes(row[:4].tobytes(), "little")
        if length > len(row) - 4:
            raise ValueError(f"{key}: text {i} has {length} bytes, the array has room for {len(row) - 4}")
        texts.flat[i] = row[4 : 4 + length].tobytes().decode()
    return texts
