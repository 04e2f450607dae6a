"""The models of a service: which versions exist, which one serves, and why a model is not ready.

The folder is watched: a new version loads beside the serving one and replaces it once READY; a failure changes nothing.
"""

import logging
import threading
import time
from pathlib import Path
from typing import Any

from service.bundle import read_document
from service.engine.process.desired_models import DesiredModels
from service.engine.repository.entry import ModelEntry
from service.engine.repository.health_check import HealthCheck
from service.engine.repository.loader import Loader
from service.engine.repository.metadata import model_details, model_summary
from service.engine.repository.prover import Prover
from service.engine.repository.reconciler import ModelReconciler
from service.engine.repository.registry import ALL_MODELS, ModelRegistry, ReadyWhen
from service.engine.repository.scan import CANDIDATE
from service.engine.rollout.tally import Tally
from service.engine.sessions.model import Model
from service.errors import EkibenError

log = logging.getLogger(__name__)


class Repository:
    """Reads are safe from any thread and take no lock; holding a Model keeps its version from being freed.

    `poll_s`: interval of scans of the folder. `health_check_s`: interval of health checks of each model.
    `max_parallel_loads`: number of models that are loaded at the same time. `prover`: proves versions in child
    processes before this process opens them; without it, this process runs all checks. `desired`: what workers tell
    each other of requests to load and unload. `ready_when`: the readiness policy. `tally_folder`: where workers share
    how candidates compare. `max_difference`: the share of differing answers that stops a candidate.
    """

    def __init__(
        self,
        root: Path,
        loader: Loader,
        *,
        poll_s: float = 1.0,
        health_check_s: float = 30.0,
        max_parallel_loads: int = 1,
        prover: Prover | None = None,
        desired: DesiredModels | None = None,
        ready_when: ReadyWhen = ALL_MODELS,
        tally_folder: Path | None = None,
        max_difference: float = 0.002,
    ) -> None:
        self._root = root
        self._device = loader.device
        self._poll_s = poll_s
        self._registry = ModelRegistry(f"{root} has not been scanned yet", ready_when)
        self._prover = prover
        self._reconciler = ModelReconciler(
            root, self._registry, loader, max_parallel_loads=max_parallel_loads, prover=prover, desired=desired
        )
        self._health_check = HealthCheck(
            registry=self._registry,
            report_failure=self._reconciler.report_failure,
            round_s=health_check_s,
            timeout_s=loader.timeout_s,
        )
        self._tally_folder, self._max_difference = tally_folder, max_difference
        self._tallies: dict[str, Tally] = {}  # by the name of the model
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Scan the folder now; load, watch and check the models in the background."""
        self._reconciler.scan()
        self._threads = [
            threading.Thread(target=self._watch, name="reconciler", daemon=True),
            threading.Thread(target=self._health_check.run, args=(self._closing,), name="health-check", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def refresh(self) -> None:
        """Scan the folder now, and return when every change was loaded or has failed. Not for an event loop."""
        self._reconciler.scan()
        self._reconciler.reconcile(self._closing)
        self._reconciler.unload_drained()

    def load(self, name: str, *, timeout_s: float | None = None) -> None:
        """Load the version that `current` names, unless it serves already, and return when it is READY.

        Raises EkibenError: unknown-model; not-ready with the reason (an older version keeps serving); timeout if
        another load of the model takes longer than `timeout_s`. Blocks: must not be called from a running event loop.
        """
        self._reconciler.load(name, timeout_s)

    def unload(self, name: str, *, timeout_s: float | None = None) -> None:
        """Stop serving the model until the next `load`; requests that hold it are finished."""
        self._reconciler.unload(name, timeout_s)

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Stop watching, and stop loading after the current model; returns in time even if a thread hangs."""
        self._closing.set()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
        self._reconciler.join_loads(max(end - time.monotonic(), 0))
        if self._prover is not None:
            self._prover.records.close()

    @property
    def ready(self) -> bool:
        return self.not_ready_reason() is None

    def not_ready_reason(self) -> str | None:
        """Return why this repository is not ready, or None if it is."""
        return self._registry.not_ready_reason()

    def get(self, name: str) -> Model:
        """Return the serving model, to hold for one response. Raises EkibenError: unknown-model or not-ready."""
        entry = self._registry[name]
        if (model := entry.model) is None:
            raise EkibenError("not-ready", entry.display_version.not_ready_reason)
        return model

    def compared_versions(self, name: str) -> tuple[Model, Model] | None:
        """Return the serving version and the candidate if both are READY, unless they are the same version.

        A stateful model is not compared: a sequence must go on with the version that began it.
        """
        entries = self._registry.get(name), self._registry.get(f"{name}{CANDIDATE}")
        serving, candidate = (None if entry is None else entry.model for entry in entries)
        if serving is None or candidate is None or serving.manifest.version == candidate.manifest.version:
            return None
        return None if getattr(serving.manifest.reader, "state", None) is not None else (serving, candidate)

    @property
    def has_candidates(self) -> bool:
        return self._registry.has_candidates

    def tally(self, serving: Model, candidate: Model) -> Tally:
        """Return how the answers of these two versions of a model compare."""
        name, versions = serving.manifest.name, (serving.manifest.version, candidate.manifest.version)
        tally = self._tallies.get(name)
        if tally is None or (tally.serving, tally.candidate) != versions:
            tally = Tally(self._tally_folder, name, *versions, share=self._max_difference)
            self._tallies[name] = tally
        return tally

    def list_models(self) -> list[dict[str, Any]]:
        """Return the summary of every model and candidate as JSON values."""
        return [self._summary(entry) for entry in self._registry.entries()]

    def describe_model(self, name: str) -> dict[str, Any]:
        """Return the details of one model as JSON values. Raises EkibenError unknown-model."""
        entry = self._registry[name]
        last = self._health_check.last_result(name, entry.display_version.version)
        health_check = {"every_s": self._health_check.round_s, "passed": last.passed, "last": last.at}
        return {**model_details(entry), **self._comparison(entry), "device": self._device, "heartbeat": health_check}

    def read_document(self, name: str, file: str) -> tuple[bytes, str] | None:
        """Return a file of the version that `describe_model` describes, with its SHA-256, or None if it has none.

        Raises EkibenError unknown-model or not-ready, and BundleError if the file is not what the manifest lists.
        """
        version = self._registry[name].display_version
        if version.manifest is None:
            raise EkibenError("not-ready", version.not_ready_reason)
        manifest = version.manifest
        content = read_document(self._root / manifest.name / manifest.version, manifest, file)
        return None if content is None else (content, manifest.files[file].sha256)

    def _summary(self, entry: ModelEntry) -> dict[str, Any]:
        return {**model_summary(entry), **self._comparison(entry)}

    def _comparison(self, entry: ModelEntry) -> dict[str, Any]:
        """How a candidate compares with the serving version; nothing for a model."""
        name = entry.name.removesuffix(CANDIDATE)
        if name == entry.name:
            return {}
        versions = self.compared_versions(name)
        return {"comparison": None if versions is None else self.tally(*versions).describe()}

    def with_candidates(self) -> "Repository":
        """Return a view of this repository whose `get` returns candidates, as far as they have not been stopped."""
        return _CandidateView(self)

    def _watch(self) -> None:
        while True:
            try:
                self._reconciler.start_loads(self._closing)
                self._reconciler.unload_drained()
                if self._closing.wait(self._poll_s):
                    return
                self._reconciler.scan()
            except Exception:  # a shortage, such as no memory for a thread, passes
                log.exception("the folder of bundles could not be watched; the next attempt follows")
                self._closing.wait(self._poll_s)


class _CandidateView(Repository):
    def __init__(self, repository: Repository) -> None:
        vars(self).update(vars(repository))

    def get(self, name: str) -> Model:
        versions = self.compared_versions(name)
        if versions is None or self.tally(*versions).decision == "stopped":
            return super().get(name)
        return versions[1]
