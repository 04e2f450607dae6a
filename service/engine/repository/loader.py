"""Load one version from its folder until it is READY, stage by stage.

Invariant: each stage has a timeout. A READY version has reproduced every golden case and has run every admitted shape
on the device that it serves on. It has reproduced every request case on that device as well, unless its exact bytes
were proven on that kind of device by a child process (`Prover`).
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from service.bundle import Bundle, RequestCase, open_bundle
from service.engine.limits import Limits
from service.engine.process.call_timeout import CallTimeoutError, call_with_timeout
from service.engine.process.memory import MEASUREMENT_METHOD, resident_bytes, trim_heap
from service.engine.process.shortage import ShortageError
from service.engine.repository.version import Version
from service.engine.sessions.device import Device
from service.engine.sessions.model import Model, create_model
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import check_batch_invariance
from service.engine.verification.golden_strength import check_golden_strength
from service.engine.verification.gpu_bound import MEASUREMENT_METHOD as GPU_MEASUREMENT_METHOD
from service.engine.verification.gpu_bound import GpuBound, GpuBounds
from service.engine.verification.parity import replay_cases
from service.engine.verification.warmup import BatchPlanner, warm_up
from service.errors import BundleError, DeviceError

Check = Callable[[Model, Bundle], None]
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The bytes that passed every check on a device, in a child process, and what it measured of their tokenizer."""

    digest: str
    device: Device
    max_inline_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Loader:
    """`planner`: the runner whose batches are warmed up; `timeout_s`: the limit of each stage and each health check.

    `prepack` lets each session copy the weights of data files, which it then does not share with other processes. With
    `gpu_bounds`, the device is a GPU, and what a version may allocate there is measured before its session is made.
    """

    device: Device
    replay_requests: Callable[[Model, Sequence[RequestCase]], None]
    intra_op_threads: int = 1
    timeout_s: float = 60.0
    planner: BatchPlanner | None = None
    limits: Limits = DEFAULT_LIMITS
    prepack: bool = False
    gpu_bounds: GpuBounds | None = None

    def stages(self, version: Version, folder: Path, proof: Proof | None = None) -> Iterator[Version]:
        """Yield the version after each stage, the last one READY; raises the error that stops a stage.

        What was proven on this kind of device is not repeated.
        """
        began = time.perf_counter()
        trim_heap()
        resident = resident_bytes()
        bundle = call_with_timeout(self.timeout_s, open_bundle, folder)
        if proof is not None and proof.digest != digest(bundle):
            # The next scan sees the change.
            raise ShortageError(f"{version.label}: its files changed after they were proven")
        yield (version := replace(version, manifest=bundle.manifest))
        with self._gpu_bound(bundle) as bound:
            measured_bytes = None if proof is None else proof.max_inline_bytes
            max_gpu_bytes = None if bound is None else bound.max_bytes
            model = call_with_timeout(self.timeout_s, self.create_model, bundle, measured_bytes, max_gpu_bytes)
            yield (version := version.to("VERIFYING", provider=model.session.provider))
            measured = call_with_timeout(self.timeout_s, replay_golden, model, bundle)
            yield (version := replace(version, measured=measured))
            if proof is None or proof.device != self.device:
                for check in self.checks().values():
                    call_with_timeout(self.timeout_s, check, model, bundle)
            yield (version := version.to("WARMING"))
            warmup_began = time.perf_counter()
            num_shapes = self._warm_up(model.session)
            warmup = {"shapes": num_shapes, "seconds": time.perf_counter() - warmup_began}
            trim_heap()
            grown_bytes = max(resident_bytes() - resident, 0)
            memory = {"model_bytes": bundle.model_bytes, "grown_bytes": grown_bytes, "how": MEASUREMENT_METHOD}
            if bound is not None:
                memory |= bound.reserve(model.session)
                memory["how"] = f"{MEASUREMENT_METHOD}; {GPU_MEASUREMENT_METHOD}"
            load_s = time.perf_counter() - began
            yield version.to("READY", model=model, golden=bundle.golden, warmup=warmup, memory=memory, load_s=load_s)

    def create_model(
        self, bundle: Bundle, max_inline_bytes: int | None = None, max_gpu_bytes: int | None = None
    ) -> Model:
        return create_model(bundle, self._create_session(bundle, max_gpu_bytes), max_inline_bytes)

    def _create_session(self, bundle: Bundle, max_gpu_bytes: int | None = None) -> Session:
        return Session(
            bundle.model,
            manifest=bundle.manifest,
            device=self.device,
            threads=self.intra_op_threads,
            data=bundle.data,
            prepack=self.prepack,
            max_gpu_bytes=max_gpu_bytes,
        )

    def _warm_up(self, session: Session) -> int:
        return call_with_timeout(self.timeout_s, warm_up, session, self.planner)

    def _gpu_bound(self, bundle: Bundle) -> AbstractContextManager[GpuBound | None]:
        if self.gpu_bounds is None:
            return nullcontext()
        create = partial(call_with_timeout, self.timeout_s, self._create_session, bundle)
        return self.gpu_bounds.measure(bundle, create, self._warm_up)

    def checks(self) -> dict[str, Check]:
        """Return the checks after the replay of the goldens, by what is being done; each raises BundleError."""
        return {
            "comparing golden rows alone and in their batch": _check_rows,
            "replaying golden cases on shuffled weights": _check_strength,
            "answering the request cases": self._replay_requests,
        }

    def _replay_requests(self, model: Model, bundle: Bundle) -> None:
        self.replay_requests(model, bundle.requests)


def replay_golden(model: Model, bundle: Bundle) -> dict[str, float]:
    """Run every golden case; return the largest absolute difference to PyTorch by output, or raise BundleError."""
    return replay_cases(model.session, dict(enumerate(bundle.golden)))


def digest(bundle: Bundle) -> str:
    """Return a hash over every byte of the bundle: its manifest holds the hashes of the other files."""
    return hashlib.sha256(bundle.manifest.model_dump_json().encode()).hexdigest()


def _check_rows(model: Model, bundle: Bundle) -> None:
    check_batch_invariance(model.session, dict(enumerate(bundle.golden)))


def _check_strength(model: Model, bundle: Bundle) -> None:
    check_golden_strength(model.session, bundle)


def failure_reason(error: Exception, stage: str) -> str:
    """Return the reason that this error of a stage gives; errors of bundles and devices name what they concern."""
    match error:
        case BundleError() | DeviceError() | ShortageError():
            return str(error)
        case CallTimeoutError():
            return f"{stage} hangs: {error}"
        case _:
            return f"{stage} failed: {type(error).__name__}: {error}"
