"""Load one version from its folder until it is READY, stage by stage.

Invariant: each stage has a timeout. A READY version has reproduced every golden case and every request case, and has
run every admitted shape, on the device that it serves on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service.bundle import Bundle, RequestCase, open_bundle
from service.engine.process.call_timeout import CallTimeoutError, call_with_timeout
from service.engine.process.memory import MEASUREMENT_METHOD, resident_bytes, trim_heap
from service.engine.repository.version import Version
from service.engine.sessions.device import Device
from service.engine.sessions.model import Model, read_tokenizer
from service.engine.sessions.session import Session
from service.engine.verification.parity import replay
from service.engine.verification.warmup import BatchPlanner, warm_up
from service.errors import BundleError, DeviceError


@dataclass(frozen=True, kw_only=True)
class Loader:
    """`planner`: the runner whose batches are warmed up; `timeout_s`: the limit of each stage and each health check."""

    device: Device
    replay_requests: Callable[[Model, Sequence[RequestCase]], None]
    intra_op_threads: int = 1
    timeout_s: float = 60.0
    planner: BatchPlanner | None = None

    def stages(self, version: Version, folder: Path) -> Iterator[Version]:
        """Yield the version after each stage, the last one READY; raises the error that stops a stage."""
        began = time.perf_counter()
        trim_heap()
        resident = resident_bytes()
        bundle = call_with_timeout(self.timeout_s, open_bundle, folder)
        yield (version := replace(version, manifest=bundle.manifest))
        model = call_with_timeout(self.timeout_s, self._create_model, bundle)
        yield (version := version.to("VERIFYING", provider=model.session.provider))
        measured = call_with_timeout(self.timeout_s, replay, model.session, bundle)
        yield (version := replace(version, measured=measured))
        call_with_timeout(self.timeout_s, self.replay_requests, model, bundle.requests)
        yield (version := version.to("WARMING"))
        warmup_began = time.perf_counter()
        num_shapes = call_with_timeout(self.timeout_s, warm_up, model.session, self.planner)
        warmup = {"shapes": num_shapes, "seconds": time.perf_counter() - warmup_began}
        trim_heap()
        grown_bytes = max(resident_bytes() - resident, 0)
        memory = {"model_bytes": len(bundle.model), "grown_bytes": grown_bytes, "how": MEASUREMENT_METHOD}
        load_s = time.perf_counter() - began
        yield version.to("READY", model=model, golden=bundle.golden, warmup=warmup, memory=memory, load_s=load_s)

    def _create_model(self, bundle: Bundle) -> Model:
        session = Session(bundle.model, manifest=bundle.manifest, device=self.device, threads=self.intra_op_threads)
        return Model(manifest=bundle.manifest, session=session, tokenizer=read_tokenizer(bundle))


def failure_reason(error: Exception, stage: str) -> str:
    """Return the reason that this error of a stage gives; errors of bundles and devices name what they concern."""
    match error:
        case BundleError() | DeviceError():
            return str(error)
        case CallTimeoutError():
            return f"{stage} hangs: {error}"
        case _:
            return f"{stage} failed: {type(error).__name__}: {error}"
