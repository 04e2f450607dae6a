"""Bound what a session may allocate on a GPU by what another session of the same graph needed for every shape.

onnxruntime counts weights, activations and workspaces against `gpu_mem_limit`, and frees none before the session ends.
Invariant: the bounds of all sessions that this process has loaded are within the memory of its GPU together.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from service.bundle import Bundle
from service.contract.heads import LanguageModelHead
from service.engine.gpu.memory import cuda_memory, gpu_memory
from service.engine.process.shortage import ShortageError, is_out_of_memory
from service.engine.sessions.session import Session
from service.errors import DeviceError

# Batches between two shapes of the warm-up need up to 3 % more than these; the rest is for holes between allocations.
MARGIN, MIN_MARGIN_BYTES = 0.1, 32 << 20
REMEDIES = (
    "unload a model, run fewer workers on this GPU, lower EKIBEN_THREADS, EKIBEN_MAX_BATCH_ITEMS, "
    "EKIBEN_MAX_BATCH_STEPS or EKIBEN_KV_CACHE_BYTES, or use a larger GPU"
)
MEASUREMENT_METHOD = (
    "device_bytes is the growth of the memory in use on the GPU while the session was made and every shape was run, by "
    "other processes too; max_device_bytes is the bound of the session there"
)


@dataclass(frozen=True, kw_only=True)
class GpuBounds:
    """The bounds of this process, which has one GPU. `num_runs` runs of one session may compute at the same time.

    Beside its session, a language model may have `kv_cache_bytes` of keys and values.
    """

    num_runs: int
    kv_cache_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _reserved: WeakKeyDictionary[Session, tuple[int, int]] = field(default_factory=WeakKeyDictionary, init=False)

    @contextmanager
    def measure(
        self, bundle: Bundle, create: Callable[[int], Session], run_shapes: Callable[[Session], object]
    ) -> Iterator["GpuBound"]:
        """Give the bound of the next session of this bundle, from one that is closed again; `create` takes its bound.

        No other load measures in the block. Raises ShortageError if the weights, the warm-up or the bound exceed what
        is free, DeviceError if they exceed the GPU.
        """
        with self._lock:
            self._require(bundle, bundle.model_bytes, "its weights")
            before, available_bytes = gpu_memory(), self._available()
            try:
                session = create(available_bytes)
                weights_bytes = max(before.free - gpu_memory().free, bundle.model_bytes)
                run_shapes(session)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise self._refusal(bundle, f"more than {_mib(available_bytes)}", "its warm-up") from error
            peak_bytes = max(before.free - gpu_memory().free, weights_bytes)
            del session
            needed_bytes = weights_bytes + self.num_runs * (peak_bytes - weights_bytes)
            max_bytes = needed_bytes + max(int(MARGIN * needed_bytes), MIN_MARGIN_BYTES)
            generates = isinstance(bundle.manifest.head, LanguageModelHead)
            cache_bytes = self.kv_cache_bytes if generates else 0
            purpose = f"its weights and {self.num_runs} runs at the same time"
            self._require(bundle, max_bytes + cache_bytes, f"{purpose}, and keys and values" if generates else purpose)
            yield GpuBound(max_bytes, cache_bytes, gpu_memory().free, self._reserved)

    def _available(self) -> int:
        return gpu_memory().free - self._reserved_bytes()

    def _reserved_bytes(self) -> int:
        """What loaded models may still take."""
        reserved = list(self._reserved.values())
        cache_bytes = sum(cache_bytes for _, cache_bytes in reserved) - cuda_memory().num_bytes
        return sum(session_bytes for session_bytes, _ in reserved) + max(cache_bytes, 0)

    def _require(self, bundle: Bundle, num_bytes: int, purpose: str) -> None:
        if num_bytes > gpu_memory().total:
            raise DeviceError(str(self._refusal(bundle, _mib(num_bytes), purpose)))
        if num_bytes > self._available():
            raise self._refusal(bundle, _mib(num_bytes), purpose)

    def _refusal(self, bundle: Bundle, size: str, purpose: str) -> ShortageError:
        memory = gpu_memory()
        return ShortageError(
            f"{bundle.manifest.name}/{bundle.manifest.version} needs {size} of the GPU for {purpose}, but "
            f"{_mib(memory.free)} of {_mib(memory.total)} are free, and loaded models may take "
            f"{_mib(self._reserved_bytes())} of these: {REMEDIES}"
        )


@dataclass(frozen=True)
class GpuBound:
    """What a session may allocate, the keys and values beside it, and what was free before it was made, in bytes."""

    max_bytes: int
    cache_bytes: int
    free_bytes: int
    _reserved: WeakKeyDictionary[Session, tuple[int, int]]

    def reserve(self, session: Session) -> dict[str, Any]:
        """Keep what the session has not allocated yet from other sessions while it lives; return what it has."""
        device_bytes = max(self.free_bytes - gpu_memory().free, 0)
        self._reserved[session] = max(self.max_bytes - device_bytes, 0), self.cache_bytes
        return {"device_bytes": device_bytes, "max_device_bytes": self.max_bytes}


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):,.0f} MiB"
