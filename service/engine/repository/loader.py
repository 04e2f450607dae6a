"""Load one version from its folder until it is READY, stage by stage.

Invariant: each stage has a timeout. A READY version has reproduced every golden case and has run every admitted shape
on the device that it serves on. It has reproduced every request case on that device as well, unless its exact bytes
were proven on that kind of device by a child process (`Prover`).
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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

    `prepack` lets each session copy the weights of data files, which it then does not share with other processes.
    """

    device: Device
    replay_requests: Callable[[Model, Sequence[RequestCase]], None]
    intra_op_threads: int = 1
    timeout_s: float = 60.0
    planner: BatchPlanner | None = None
    limits: Limits = DEFAULT_LIMITS
    prepack: bool = False

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
        measured_bytes = None if proof is None else proof.max_inline_bytes
        model = call_with_timeout(self.timeout_s, self.create_model, bundle, measured_bytes)
        yield (version := version.to("VERIFYING", provider=model.session.provider))
        measured = call_with_timeout(self.timeout_s, replay_golden, model, bundle)
        yield (version := replace(version, measured=measured))
        if proof is None or proof.device != self.device:
            for check in self.checks().values():
                call_with_timeout(self.timeout_s, check, model, bundle)
        yield (version := version.to("WARMING"))
        warmup_began = time.perf_counter()
        num_shapes = call_with_timeout(self.timeout_s, warm_up, model.session, self.planner)
        warmup = {"shapes": num_shapes, "seconds": time.perf_counter() - warmup_began}
        trim_heap()
        grown_bytes = max(resident_bytes() - resident, 0)
        memory = {"model_bytes": bundle.model_bytes, "grown_bytes": grown_bytes, "how": MEASUREMENT_METHOD}
        load_s = time.perf_counter() - began
        yield version.to("READY", model=model, golden=bundle.golden, warmup=warmup, memory=memory, load_s=load_s)

    def create_model(self, bundle: Bundle, max_inline_bytes: int | None = None) -> Model:
        session = Session(
            bundle.model,
            manifest=bundle.manifest,
            device=self.device,
            threads=self.intra_op_threads,
            data=bundle.data,
            prepack=self.prepack,
        )
        return create_model(bundle, session, max_inline_bytes)

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
