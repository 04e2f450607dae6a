"""Arrays in the memory of the device that sessions run on, read and written there by graphs of one operator."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.engine.sessions.device import PROVIDERS, Device

# y = ScatterND(x, i, v): a copy of x with the values v at the indices i.
SCATTER = bytes.fromhex(
    "080a3a480a170a01780a01690a01761201792209536361747465724e441201675a090a017812040a0208015a090a016912040a0208075a"
    "090a017612040a02080162090a017912040a02080142040a001012"
)
# y = GatherND(x, i): the values of x at the indices i.
GATHER = bytes.fromhex(
    "080a3a390a130a01780a016912017922084761746865724e441201675a090a017812040a0208015a090a016912040a02080762090a0179"
    "12040a02080142040a001012"
)
FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class DeviceView:
    """Contiguous float32 at an address of a device, which the array that it is a part of keeps allocated."""

    device: Device
    address: int
    shape: tuple[int, ...]

    def bind_to(self, bind: Any, name: str) -> None:
        """Give these numbers to a session as its input, or these places to it for its output."""
        bind(name, self.device, 0, np.float32, self.shape, self.address)


def device_zeros(shape: Sequence[int], device: Device) -> "DeviceArray":
    """Return zeros in the memory of the device; a process uses one GPU, which has number 0 there."""
    return DeviceArray(ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32), device, 0), device)


class DeviceArray:
    """A float32 array. Indices are int64 [..., N], for the first N axes; each names the values of the other axes."""

    def __init__(self, value: ort.OrtValue, device: Device) -> None:
        self._value, self._device = value, device
        self.shape = tuple(value.shape())
        self.size = prod(self.shape)

    def view(self, first: int, shape: tuple[int, ...]) -> DeviceView:
        """The numbers of this shape that begin at the index `first` of the first axis."""
        offset = first * prod(self.shape[1:])
        return DeviceView(device=self._device, address=self._value.data_ptr() + FLOAT_BYTES * offset, shape=shape)

    def write(
        self, indices: npt.NDArray[np.int64], values: "npt.NDArray[np.float32] | DeviceView | DeviceArray"
    ) -> None:
        """Put values at the indices, each of which comes once."""
        binding = self._bind(SCATTER, indices)
        match values:
            case np.ndarray():
                binding.bind_cpu_input("v", np.ascontiguousarray(values))
            case DeviceView():
                values.bind_to(binding.bind_input, "v")
            case DeviceArray():
                binding.bind_ortvalue_input("v", values._value)
        # In the place of x: only the values are moved.
        binding.bind_ortvalue_output("y", self._value)
        _run(SCATTER, self._device, binding)

    def gather(self, indices: npt.NDArray[np.int64]) -> "DeviceArray":
        """The values at the indices, on the device."""
        binding = self._bind(GATHER, indices)
        binding.bind_output("y", self._device, 0)
        return DeviceArray(_run(GATHER, self._device, binding)[0], self._device)

    def read(self) -> npt.NDArray[np.float32]:
        """A copy of the values on the host."""
        values: npt.NDArray[np.float32] = self._value.numpy()
        return values.copy() if self._device == "cpu" else values

    def _bind(self, model: bytes, indices: npt.NDArray[np.int64]) -> ort.IOBinding:
        binding = _session(model, self._device).io_binding()
        binding.bind_ortvalue_input("x", self._value)
        binding.bind_cpu_input("i", np.ascontiguousarray(indices))
        return binding


@cache
def _session(model: bytes, device: Device) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if device == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return ort.InferenceSession(model, options, providers=PROVIDERS[device][:1])


def _run(model: bytes, device: Device, binding: ort.IOBinding) -> list[ort.OrtValue]:
    _session(model, device).run_with_iobinding(binding)
    outputs: list[ort.OrtValue] = binding.get_outputs()
    return outputs
