"""Values of the tensors in an ONNX file, and copies of the file with other values.

A patch replaces bytes by as many bytes, so every length in the file stays correct.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.onnx_wire import TensorInfo, read_tensors


def stored_tensors(model: bytes, *dtypes: str) -> list[TensorInfo]:
    """Return the tensors of these types that are stored as raw bytes, in the order of the file. Raises ValueError."""
    tensors = [tensor for tensor in read_tensors(model) if tensor.size and tensor.dtype in dtypes]
    return sorted(tensors, key=lambda tensor: tensor.offset)


def tensor_values(model: bytes, tensor: TensorInfo) -> npt.NDArray[Any]:
    """Return the values as a view of `model`."""
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    return np.frombuffer(model, dtype, tensor.size // dtype.itemsize, tensor.offset).reshape(tensor.dims)


def with_values(model: bytes, tensor: TensorInfo, values: npt.NDArray[Any]) -> bytes:
    """Return a copy of `model` in which the tensor has these values, of the same shape."""
    content = np.ascontiguousarray(values, np.dtype(tensor.dtype).newbyteorder("<")).tobytes()
    if len(content) != tensor.size:
        raise ValueError(f"tensor {tensor.name!r} has {tensor.size} bytes, got {len(content)}")
    return model[: tensor.offset] + content + model[tensor.offset + tensor.size :]
