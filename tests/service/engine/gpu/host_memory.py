"""Memory of the host in place of that of a GPU: sessions on the CPU compute in it."""

import ctypes
from collections.abc import Iterable
from typing import Literal

import numpy as np

from service.engine.gpu.memory import Copy


class HostMemory:
    """`max_bytes` is what may be allocated at the same time; what is freed is overwritten."""

    device: Literal["cpu"] = "cpu"

    def __init__(self, max_bytes: int = 1 << 40) -> None:
        self.max_bytes = max_bytes
        self.allocated: dict[int, np.ndarray] = {}

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.allocated.values())

    def allocate(self, num_bytes: int) -> int:
        if self.num_bytes + num_bytes > self.max_bytes:
            raise MemoryError("CUDA failure 2: out of memory")
        array = np.zeros(num_bytes, np.uint8)
        self.allocated[array.ctypes.data] = array
        return int(array.ctypes.data)

    def free(self, address: int) -> None:
        self.allocated.pop(address)[:] = 0xFF  # NaN as float32

    def copy(self, copies: Iterable[Copy]) -> None:
        for one in copies:
            assert one.width <= min(one.target_pitch, one.source_pitch) or one.num_rows == 1
            for row in range(one.num_rows):
                ctypes.memmove(one.target + row * one.target_pitch, one.source + row * one.source_pitch, one.width)
