"""How much memory the GPU of this process has, by the CUDA runtime.

Invariant: it is the GPU, or the MIG instance, on which the sessions of this process run: CUDA_VISIBLE_DEVICES counts.
"""

import ctypes
from typing import NamedTuple

from service.engine.gpu.faults import runtime_library
from service.errors import DeviceError


class GpuMemory(NamedTuple):
    """What all processes leave free, in bytes, of the total."""

    free: int
    total: int


def gpu_memory() -> GpuMemory:
    """Ask the CUDA runtime; raises DeviceError if it does not answer."""
    try:
        runtime = ctypes.CDLL(runtime_library())
    except OSError as error:
        raise DeviceError(f"the memory of the GPU is unknown: {error}") from error
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if result := runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
        runtime.cudaGetErrorString.restype = ctypes.c_char_p
        reason = runtime.cudaGetErrorString(result).decode()
        raise DeviceError(f"the memory of the GPU is unknown: cudaMemGetInfo gives {result} ({reason})")
    return GpuMemory(free.value, total.value)
