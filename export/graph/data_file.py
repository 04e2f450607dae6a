"""Moves the weights of a large graph into a data file, so that no message of protobuf and no copy in memory holds them.

Graphs of at most MAX_INLINE_BYTES keep their weights: one file, and the bytes that earlier exports gave. The data file
has the layout that the service requires: the initializers in the order of the graph, each at a multiple of ALIGNMENT.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from service.data_files.data_file import Array, DataFile, open_data_file
from service.data_files.external import ALIGNMENT, MIN_BYTES, external_tensors
from service.manifest import MODEL_DATA

MAX_INLINE_BYTES = 512 << 20
MAX_DATA_BYTES = 1 << 36
BOOL = ir.DataType.BOOL


def move_weights(model: ir.Model, folder: Path, *, max_inline_bytes: int = MAX_INLINE_BYTES) -> DataFile | None:
    """Write the large initializers of the main graph to a file in the folder; None if all of them may stay inside."""
    tensors = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes >= MIN_BYTES and value.const_value.dtype != BOOL
    }
    if sum(tensor.nbytes for tensor in tensors.values()) <= max_inline_bytes:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path, offset = folder / MODEL_DATA, 0
    with path.open("wb") as file:
        for name, tensor in tensors.items():
            file.write(b"\0" * (-offset % ALIGNMENT))
            offset += -offset % ALIGNMENT
            file.write(np.ascontiguousarray(tensor.numpy()).data)
            shape = ir.Shape(tensor.numpy().shape)
            model.graph.initializers[name].const_value = ir.ExternalTensor(
                MODEL_DATA, offset, tensor.nbytes, tensor.dtype, shape=shape, name=name, base_dir=folder
            )
            offset += tensor.nbytes
        file.flush()
        os.fsync(file.fileno())
    return open_data_file(path, max_bytes=MAX_DATA_BYTES)


def share_parameters(module: nn.Module, model: bytes, data: DataFile) -> int:
    """Let the parameters whose bits are in the data file read them there, and return their bytes.

    The module is not to be trained any more: the mapping cannot be written.
    """
    arrays = [data.values(tensor) for tensor in external_tensors(model)]
    shared = 0
    for parameter in (*module.parameters(), *module.buffers()):
        with suppress(StopIteration):
            array = next(array for array in arrays if _is_same(array, parameter))
            with warnings.catch_warnings():
                # PyTorch warns of arrays that are only read.
                warnings.simplefilter("ignore")
                parameter.data = torch.from_numpy(array)
            shared += array.nbytes
    return shared


def _is_same(array: Array, parameter: torch.Tensor) -> bool:
    if parameter.device.type != "cpu" or not parameter.is_contiguous() or array.shape != tuple(parameter.shape):
        return False
    other = parameter.detach().numpy()
    return array.dtype == other.dtype and all(
        np.array_equal(a, b) for a, b in zip(_rows(array), _rows(other), strict=True)
    )


def _rows(array: Array) -> Iterator[Array]:
    """The bytes in parts: a comparison of all at once would need as much memory again."""
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), 1 << 24):
        yield flat[start : start + (1 << 24)]
