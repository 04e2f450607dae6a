"""The models of a service: what each is, which state it is in, and why.

A version goes LOADING -> VERIFYING -> WARMING -> READY (`service.engine.repository.version`). READY means that on this device the
session gave every golden case's answer, the task code every request case's, and every admitted shape was run. The
folder is watched: a new version is loaded beside the old one and takes over when READY; a failed one changes nothing.
The repository is ready when it has a READY model and misses none: an empty one is not.
"""

import threading
import time
from pathlib import Path
from typing import Any

from service.engine.repository.health_check import Heartbeat
from service.engine.repository.loader import Loader, ReplayRequests
from service.engine.repository.metadata import describe, describe_in_full
from service.engine.repository.reconciler import Keeper
from service.engine.repository.registry import Catalog
from service.engine.sessions.device import Device
from service.engine.sessions.model import Model
from service.engine.verification.warmup import Batching
from service.errors import EkibenError

__all__ = ["Model", "ReplayRequests", "Repository"]


class Repository:
    """Reads are safe from any thread and take no lock; a Model that is held keeps its version from being freed.

    `poll_s`: how often the folder is looked at; `heartbeat_s`: how often each model is checked while it serves;
    `hang_s`: how long a stage of loading, or a check, may take; `loads_at_once`: of different models; `batching`: the
    runner, whose batches are to be warm.
    """

    def __init__(
        self,
        root: Path,
        *,
        device: Device,
        intra_op_threads: int = 1,
        poll_s: float = 1.0,
        heartbeat_s: float = 30.0,
        hang_s: float = 60.0,
        loads_at_once: int = 1,
        batching: Batching | None = None,
    ) -> None:
        self.root = root
        self.device: Device = device
        self._intra_op_threads = intra_op_threads
        self._poll_s = poll_s
        self._hang_s = hang_s
        self._loads_at_once = loads_at_once
        self._batching = batching
        self._catalog = Catalog(f"{root} was not looked at yet")
        self._heartbeat = Heartbeat(self._catalog, self._fail, round_s=heartbeat_s, bound_s=hang_s)
        self._keeper: Keeper | None = None
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, replay_requests: ReplayRequests) -> None:
        """Find the bundles now; load them, follow their changes and check them in the background."""
        keeper = self._first_scan(replay_requests)
        for name, work in (("keeper", lambda: self._keep(keeper)), ("heartbeat", self._beat)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def load_all(self, replay_requests: ReplayRequests) -> None:
        """Find and load all bundles before returning, and watch nothing; not to be called from a running event loop."""
        self._first_scan(replay_requests).follow_all(self._closing)

    def refresh(self) -> None:
        """Look at the folder now, and return when everything that changed was loaded or has failed."""
        keeper = self._started()
        keeper.scan()
        keeper.follow_all(self._closing)
        keeper.sweep()

    def load(self, name: str, *, timeout_s: float | None = None) -> None:
        """Load the version that `current` names, if it does not serve already, and return when it is READY.

        Raises EkibenError: unknown-model; not-ready with the reason (a version that served goes on); timeout if other
        models are being loaded for so long. Blocks: not to be called from a running event loop.
        """
        self._started().load(name, timeout_s)

    def unload(self, name: str, *, timeout_s: float | None = None) -> None:
        """Take the model out of service until it is loaded by name; requests that hold it are finished."""
        self._started().unload(name, timeout_s)

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Stop loading after the model at hand, and watching; returns within the bound, whatever hangs."""
        self._closing.set()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))

    @property
    def ready(self) -> bool:
        return self.not_ready_because() is None

    def not_ready_because(self) -> str | None:
        """Why this repository is not ready, or None if it is."""
        return self._catalog.not_ready_because()

    def get(self, name: str) -> Model:
        """The version in service; raises EkibenError: unknown-model, or not-ready with the reason.

        Ask once for a request, and hold the Model until its answer is made.
        """
        entry = self._catalog[name]
        model = entry.model
        if model is None:
            raise EkibenError("not-ready", entry.shown.reason or f"{name} is {entry.shown.state}")
        return model

    def describe(self) -> list[dict[str, Any]]:
        """Every model in brief, as JSON values."""
        return [describe(entry) for entry in self._catalog.all()]

    def describe_model(self, name: str) -> dict[str, Any]:
        """One model in full, as JSON values. Raises EkibenError unknown-model."""
        entry = self._catalog[name]
        beat = self._heartbeat.last(name, entry.shown.version)
        return {
            **describe_in_full(entry),
            "device": self.device,
            "heartbeat": {
                "every_s": self._heartbeat.round_s,
                "passed": beat.passed if beat else 0,
                "last": beat and beat.at,
            },
        }

    def _first_scan(self, replay_requests: ReplayRequests) -> Keeper:
        loader = Loader(
            device=self.device,
            intra_op_threads=self._intra_op_threads,
            stage_s=self._hang_s,
            replay_requests=replay_requests,
            batching=self._batching,
        )
        self._keeper = Keeper(self.root, self._catalog, loader, at_once=self._loads_at_once)
        self._keeper.scan(first=True)
        return self._keeper

    def _started(self) -> Keeper:
        if self._keeper is None:
            raise EkibenError("not-ready", "the repository was not started")
        return self._keeper

    def _keep(self, keeper: Keeper) -> None:
        keeper.follow_all(self._closing)
        while not self._closing.wait(self._poll_s):
            keeper.scan()
            keeper.follow_all(self._closing)
            keeper.sweep()

    def _beat(self) -> None:
        self._heartbeat.run(self._closing)

    def _fail(self, name: str, version: str | None, reason: str) -> None:
        self._started().fail(name, version, reason)
