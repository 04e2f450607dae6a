"""The memory of the GPU of this process, by the CUDA runtime.

Invariant: it is the GPU, or the MIG instance, on which the sessions of this process run: CUDA_VISIBLE_DEVICES counts.
"""

import ctypes
from collections.abc import Iterable
from functools import cache
from typing import Literal, NamedTuple

from service.engine.gpu.faults import runtime_library
from service.errors import DeviceError

OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
BETWEEN_ANY = 4  # cudaMemcpyDefault: the addresses say which are on the host


class GpuMemory(NamedTuple):
    """What all processes leave free, in bytes, of the total."""

    free: int
    total: int


class Copy(NamedTuple):
    """`num_rows` rows of `width` bytes, each `pitch` bytes behind the one before."""

    target: int
    target_pitch: int
    source: int
    source_pitch: int
    width: int
    num_rows: int


def gpu_memory() -> GpuMemory:
    """Query the CUDA runtime. Raises DeviceError if the query fails."""
    try:
        runtime = _runtime()
    except OSError as error:
        raise DeviceError(f"the memory of the GPU is unknown: {error}") from error
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if result := runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
        reason = runtime.cudaGetErrorString(result).decode()
        raise DeviceError(f"the memory of the GPU is unknown: cudaMemGetInfo gives {result} ({reason})")
    return GpuMemory(free.value, total.value)


class CudaMemory:
    """Memory beside that of the sessions. What a call does is done when it returns; their streams wait for no other."""

    device: Literal["cuda"] = "cuda"

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}  # by address

    @property
    def num_bytes(self) -> int:
        """All that is allocated."""
        return sum(list(self._sizes.values()))

    def allocate(self, num_bytes: int) -> int:
        """Return the address of zeros. Raises MemoryError."""
        address = ctypes.c_void_p()
        _check(_runtime().cudaMalloc(ctypes.byref(address), num_bytes))
        assert address.value is not None
        self._sizes[address.value] = num_bytes
        _check(_runtime().cudaMemset(address, 0, num_bytes))
        self._wait()
        return address.value

    def free(self, address: int) -> None:
        del self._sizes[address]
        _check(_runtime().cudaFree(address))

    def copy(self, copies: Iterable[Copy]) -> None:
        """Copy within this memory, or from or to the host."""
        for one in copies:
            _check(_runtime().cudaMemcpy2D(*one, BETWEEN_ANY))
        self._wait()

    def _wait(self) -> None:
        _check(_runtime().cudaStreamSynchronize(None))


@cache
def cuda_memory() -> CudaMemory:
    """Return the one of this process."""
    return CudaMemory()


@cache
def _runtime() -> ctypes.CDLL:
    runtime = ctypes.CDLL(runtime_library())
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    runtime.cudaGetErrorString.restype = ctypes.c_char_p
    for name, types in {
        "cudaMalloc": (ctypes.POINTER(pointer), size),
        "cudaMemset": (pointer, ctypes.c_int, size),
        "cudaFree": (pointer,),
        "cudaMemcpy2D": (pointer, size, pointer, size, size, size, ctypes.c_int),
        "cudaStreamSynchronize": (pointer,),
    }.items():
        getattr(runtime, name).argtypes = types
    return runtime


def _check(result: int) -> None:
    if result:
        kind = MemoryError if result == OUT_OF_MEMORY else RuntimeError
        raise kind(f"CUDA failure {result}: {_runtime().cudaGetErrorString(result).decode()}")
