"""Values of the tensors of a graph, and the same graph with other values.

In an ONNX file, a patch replaces bytes by as many bytes, so every length in the file stays correct. A tensor of the
data file keeps its bytes there: the data file counts it as replaced, and only the new values need memory.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.data_files.data_file import DataFile
from service.data_files.external import ExternalTensor, external_tensors
from service.onnx_wire import TensorInfo, read_tensors


def stored_tensors(model: bytes, *dtypes: str) -> list[TensorInfo]:
    """Return the tensors of these types that are stored as bytes: those of the file in its order, then those of the
    data file in its order. Raises ValueError."""
    tensors = [tensor for tensor in read_tensors(model) if tensor.size and tensor.dtype in dtypes]
    external = [tensor for tensor in external_tensors(model) if tensor.dtype in dtypes]
    return [*sorted(tensors, key=lambda tensor: tensor.offset), *external]


def tensor_values(model: bytes, tensor: TensorInfo, data: DataFile | None = None) -> npt.NDArray[Any]:
    """Return the values as a view of `model` or of the data file."""
    if isinstance(tensor, ExternalTensor):
        assert data is not None
        return data.values(tensor)
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    return np.frombuffer(model, dtype, tensor.size // dtype.itemsize, tensor.offset).reshape(tensor.dims)


def replace_values(
    model: bytes, data: DataFile | None, tensor: TensorInfo, values: npt.NDArray[Any]
) -> tuple[bytes, DataFile | None]:
    """Return a graph and its data file in which the tensor has these values, of the same shape."""
    if isinstance(tensor, ExternalTensor):
        assert data is not None
        return model, data.with_values(tensor, values)
    return with_values(model, tensor, values), data


def with_values(model: bytes, tensor: TensorInfo, values: npt.NDArray[Any]) -> bytes:
    """Return a copy of `model` in which the tensor has these values, of the same shape."""
    content = np.ascontiguousarray(values, np.dtype(tensor.dtype).newbyteorder("<")).tobytes()
    if len(content) != tensor.size:
        raise ValueError(f"tensor {tensor.name!r} has {tensor.size} bytes, got {len(content)}")
    return model[: tensor.offset] + content + model[tensor.offset + tensor.size :]
