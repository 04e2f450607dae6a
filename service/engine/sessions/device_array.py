"""Arrays in the memory of the device that sessions run on, which change there."""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.engine.gpu.memory import Copy
from service.engine.sessions.device import Device, operator_session

# y = ScatterND(x, i, v): a copy of x with the values v at the indices i.
SCATTER = bytes.fromhex(
    "080a3a480a170a01780a01690a01761201792209536361747465724e441201675a090a017812040a0208015a090a016912040a0208075a"
    "090a017612040a02080162090a017912040a02080142040a001012"
)
FLOAT_BYTES = 4


class DeviceMemory(Protocol):
    """Where arrays lie; sessions know it by the name of its device."""

    @property
    def device(self) -> Device:
        """The name."""

    def allocate(self, num_bytes: int) -> int:
        """Return the address of zeros. Raises MemoryError."""

    def free(self, address: int) -> None:
        """Free what was allocated."""

    def copy(self, copies: Iterable[Copy]) -> None:
        """Copy within this memory, or from or to the host."""


@dataclass(frozen=True, kw_only=True)
class DeviceView:
    """Contiguous float32 at an address of a device, which the array that it is a part of keeps allocated."""

    device: Device
    address: int
    shape: tuple[int, ...]

    def bind_to(self, bind: Any, name: str) -> None:
        """Give these numbers to a session as its input, or these places to it for its output."""
        # A process uses one GPU, which has number 0 there.
        bind(name, self.device, 0, np.float32, self.shape, self.address)


class DeviceArray:
    """An array of `size` float32 zeros on the device, freed with this object."""

    def __init__(self, size: int, memory: DeviceMemory) -> None:
        self.size, self.memory = size, memory
        self.address = memory.allocate(FLOAT_BYTES * size)
        # The CUDA runtime frees all at the end of a process, and may end before.
        weakref.finalize(self, memory.free, self.address).atexit = False

    def view(self, first: int, shape: tuple[int, ...]) -> DeviceView:
        """The numbers of this shape that begin at `first`."""
        return DeviceView(device=self.memory.device, address=self.address + FLOAT_BYTES * first, shape=shape)


def scatter(target: DeviceView, indices: npt.NDArray[np.int64], values: DeviceView) -> None:
    """Put values at indices [..., N] of the first N axes of the target, each of which comes once."""
    session = _scatter_session(target.device)
    binding = session.io_binding()
    target.bind_to(binding.bind_input, "x")
    binding.bind_cpu_input("i", np.ascontiguousarray(indices))
    values.bind_to(binding.bind_input, "v")
    # In the place of x: only the values are moved.
    target.bind_to(binding.bind_output, "y")
    session.run_with_iobinding(binding)


@cache
def _scatter_session(device: Device) -> ort.InferenceSession:
    return operator_session(SCATTER, device)
