"""Tensors of graphs as manifests declare them: name, dtype and axes."""

from functools import partial
from typing import Annotated, Literal

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


Specs = tuple[TensorSpec, ...]


def tensor(dtype: Dtype, name: str, *shape: int | str) -> TensorSpec:
    """Return the spec of a tensor of these axes."""
    return TensorSpec(name=name, dtype=dtype, shape=shape)


uint8, int64, float32 = partial(tensor, "uint8"), partial(tensor, "int64"), partial(tensor, "float32")
