"""Bring one version from its folder to READY, stage by stage.

Invariant: each stage is bounded in time, and a version that this module calls READY gave every golden case's answer,
every request case's answer, and an answer at every shape, on the device that it will serve on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service.bundle import Bundle, RequestCase, open_bundle
from service.engine.process.call_timeout import HungError, bounded
from service.engine.process.memory import Memory, give_back, resident_bytes
from service.engine.repository.version import Version
from service.engine.sessions.device import Device
from service.engine.sessions.model import Model, read_tokenizer
from service.engine.sessions.session import Session
from service.engine.verification.parity import replay
from service.engine.verification.warmup import Batching, warm
from service.errors import BundleError, DeviceError

ReplayRequests = Callable[[Model, Sequence[RequestCase]], None]


@dataclass(frozen=True, kw_only=True)
class Loader:
    """How versions are loaded: where to, checked by what. `stage_s` bounds each stage."""

    device: Device
    intra_op_threads: int
    stage_s: float
    replay_requests: ReplayRequests
    batching: Batching | None

    def stages(self, version: Version, folder: Path) -> Iterator[Version]:
        """The version as it comes along, READY at last; raises what stops it."""
        began = time.perf_counter()
        give_back()
        resident = resident_bytes()
        bundle = bounded(self.stage_s, open_bundle, folder)
        yield (version := replace(version, manifest=bundle.manifest))
        model = bounded(self.stage_s, self._model, bundle)
        yield (version := version.to("VERIFYING", provider=model.session.provider))
        measured = bounded(self.stage_s, replay, model.session, bundle)
        yield (version := replace(version, measured=measured))
        bounded(self.stage_s, self.replay_requests, model, bundle.requests)
        yield (version := version.to("WARMING"))
        warmed = bounded(self.stage_s, warm, model.session, self.batching)
        give_back()
        memory = Memory(model_bytes=len(bundle.model), grown_bytes=max(resident_bytes() - resident, 0))
        yield version.to(
            "READY",
            model=model,
            golden=bundle.golden,
            warmed=warmed,
            memory=memory,
            load_s=time.perf_counter() - began,
        )

    def _model(self, bundle: Bundle) -> Model:
        session = Session(bundle.model, manifest=bundle.manifest, device=self.device, threads=self.intra_op_threads)
        return Model(manifest=bundle.manifest, session=session, tokenizer=read_tokenizer(bundle))


def in_words(error: Exception, version: Version) -> str:
    """Why a version could not be loaded, for people."""
    where = f"{version.name}/{version.version}" if version.version else version.name
    match error:
        case BundleError() | DeviceError():
            return str(error)
        case HungError():
            return f"{where}: {version.state} hangs: {error}"
        case _:
            return f"{where}: {version.state} failed: {type(error).__name__}: {error}"
