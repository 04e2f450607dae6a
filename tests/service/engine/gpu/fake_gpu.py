"""A GPU that only has memory: its sessions compute on the CPU, and take and free what weights and batches need."""

import weakref
from collections.abc import Sequence
from typing import Any

import onnxruntime
import pytest

from service.engine.generation import kv_cache
from service.engine.gpu.memory import GpuMemory
from service.engine.sessions.key_values import DeviceKeyValues
from service.engine.verification import gpu_bound, warmup
from tests.service.engine.gpu.host_memory import HostMemory

CUDA = "CUDAExecutionProvider"
MIB = 1 << 20
RealSession = onnxruntime.InferenceSession


class OutOfMemory(Exception):  # noqa: N818 - as onnxruntime's errors are called
    """A failure of onnxruntime, whose errors are bare subclasses of Exception."""


class FakeGpu:
    """`weights_bytes` and `row_bytes` are what every session takes, and each row of its largest batch.

    `sessions` has the provider options of every session that was made, and what was in use before.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, total: int, weights_bytes: int = 0, row_bytes: int = 0
    ) -> None:
        self.total, self.weights_bytes, self.row_bytes = total, weights_bytes, row_bytes
        self.used = 0
        self.sessions: list[tuple[dict[str, str], int]] = []
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
        monkeypatch.setattr(onnxruntime, "InferenceSession", self._create)
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
        monkeypatch.setattr(gpu_bound, "gpu_memory", self.memory)
        for module in (kv_cache, warmup):
            monkeypatch.setattr(module, "create_key_values", lambda head, _: DeviceKeyValues(head, HostMemory()))

    def memory(self) -> GpuMemory:
        return GpuMemory(self.total - self.used, self.total)

    def _create(
        self, model: bytes, options: Any, *, providers: list[Any], disabled_optimizers: Sequence[str] = ()
    ) -> Any:
        (name, provider_options), *_ = providers
        session = RealSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled_optimizers
        )
        if name != CUDA:
            return session
        self.sessions.append((provider_options, self.used))
        return _Session(session, self, int(provider_options.get("gpu_mem_limit", 1 << 62)))


class _Arena:
    """What the session calls to compute; its memory is freed with it."""

    def __init__(self, session: Any, gpu: FakeGpu, max_bytes: int) -> None:
        self._session, self._gpu, self._max_bytes = session, gpu, max_bytes
        self._allocated = [0]
        weakref.finalize(self, _free, gpu, self._allocated)
        self._grow(gpu.weights_bytes)

    def run(self, names: Sequence[str], inputs: dict[str, Any], options: Any) -> Any:
        self._grow(self._gpu.weights_bytes + self._gpu.row_bytes * max(map(len, inputs.values())))
        return self._session._sess.run(names, inputs, options)

    def _grow(self, needed: int) -> None:
        (allocated,), gpu = self._allocated, self._gpu
        if needed > self._max_bytes:
            left = self._max_bytes - allocated
            raise OutOfMemory(f"Available memory of {left} is smaller than requested bytes of {needed - allocated}")
        if needed - allocated > gpu.total - gpu.used:
            raise OutOfMemory(f"Failed to allocate memory for requested buffer of size {needed - allocated}")
        gpu.used += max(needed - allocated, 0)
        self._allocated[0] = max(needed, allocated)


class _Session:
    def __init__(self, session: Any, gpu: FakeGpu, max_bytes: int) -> None:
        self._sess = _Arena(session, gpu, max_bytes)
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.io_binding, self.run_with_iobinding = session.io_binding, session.run_with_iobinding

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return []


def _free(gpu: FakeGpu, allocated: list[int]) -> None:
    gpu.used -= allocated[0]
