"""Keep the served versions in step with the folder of bundles.

Invariant: a version starts to serve only when it is READY, in one step, and the version that it replaces stays intact
until no request holds it. A version that fails changes only the reported reason.
"""

import gc
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from weakref import WeakSet

from service.engine.process.call_timeout import CallTimeoutError
from service.engine.process.desired_models import Action, DesiredModels, DesiredState
from service.engine.process.load_slots import LoadSlots, Slot
from service.engine.process.memory import trim_heap
from service.engine.process.shortage import is_shortage
from service.engine.repository.entry import ModelEntry
from service.engine.repository.load_records import MAX_DEATHS, ProofBusyError, record_key
from service.engine.repository.loader import Loader, failure_reason
from service.engine.repository.prover import Prover, SlowProofError
from service.engine.repository.registry import ModelRegistry
from service.engine.repository.scan import CANDIDATE, ScanResult, model_names, place_of, scan_model
from service.engine.repository.version import Version
from service.errors import BundleError, DeviceError, EkibenError

SLOW_DRAIN_S = 10.0
BUSY_PROOF_S = 0.02  # between two looks at a proof that another worker makes

log = logging.getLogger(__name__)


class ModelReconciler:
    """Each load has a thread; up to `max_parallel_loads` of them run, and those of one model one after the other.

    With a `prover`, a version is proven in a child process before this process opens it. What one worker is asked to
    load or unload, the others do at their next scan; `desired` tells them.
    """

    def __init__(
        self,
        root: Path,
        registry: ModelRegistry,
        loader: Loader,
        *,
        max_parallel_loads: int = 1,
        prover: Prover | None = None,
        desired: DesiredModels | None = None,
    ) -> None:
        self._root = root
        self._registry = registry
        self._loader = loader
        self._prover = prover
        self._desired = desired or DesiredModels(None)
        self._followed: dict[str, DesiredState] = {}  # the requests of other workers and of this one
        self._slots = LoadSlots(max_parallel_loads)
        self._loading: dict[str, threading.Thread] = {}
        self._model_locks: dict[str, threading.Lock] = {}
        self._slow: WeakSet[Version] = WeakSet()
        self._ignored_folders: set[str] = set()
        self._is_first_scan = True

    def scan(self) -> None:
        """Add new models to the registry and mark removed ones, without loading any; the first ones are required."""
        try:
            names, invalid_names = model_names(self._root)
        except OSError as error:
            return self._set_error(f"cannot read the folder of bundles {self._root}: {error.strerror}")
        is_first, self._is_first_scan = self._is_first_scan, False
        for name in set(invalid_names) - self._ignored_folders:
            log.warning("%r in %s is ignored: it is not a valid model name", name, str(self._root))
        self._ignored_folders = set(invalid_names)
        for name in names:
            entry = self._registry.get(name)
            # A folder without a readable `current` is still being written, except at the start.
            if (entry is None or entry.removed) and (
                is_first or scan_model(*place_of(self._root, name)).version is not None
            ):
                self._registry.add(name, required=is_first and not name.endswith(CANDIDATE))
        for known in self._registry.entries():
            if known.name not in names and not known.removed:
                what = "file" if known.name.endswith(CANDIDATE) else "folder"
                log.warning("%s: %s removed; the model is no longer served", known.name, what)
                self._registry.update(known.name, lambda e: e.start_draining(candidate=None, removed=True))
                self._desired.discard(known.name)
        self._follow_requests()
        return self._set_error(None if names else f"no model folder in {self._root}: export a model first")

    def reconcile(self, closing: threading.Event) -> None:
        """Load every model that is new, changed or due for a retry, and return when all were loaded or have failed."""
        self.start_loads(closing)
        self.join_loads()

    def start_loads(self, closing: threading.Event) -> None:
        """Start a thread for every model that is new, changed or due; does nothing while the folder has an error."""
        self._loading = {name: thread for name, thread in self._loading.items() if thread.is_alive()}
        if self._registry.folder_error is not None:
            return
        due = {name: change for name in self._registry.names() if (change := self._pending_change(name)) is not None}
        # A version with which a worker died goes last, and when nothing else is loaded.
        deaths = {name: self._deaths(name, change) for name, change in due.items() if name not in self._loading}
        for name in sorted(deaths, key=deaths.__getitem__):
            ticket = self._slots.fast.enter()
            thread = threading.Thread(
                target=self._load_model, args=(name, closing, ticket, deaths[name] > 0), name="loading", daemon=True
            )
            try:
                thread.start()
            except BaseException:
                self._slots.fast.abandon(ticket)
                raise
            self._loading[name] = thread

    def join_loads(self, timeout_s: float | None = None) -> None:
        """Wait until the loads that were started have ended."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._loading.values():
            thread.join(None if end is None else max(end - time.monotonic(), 0))

    def load(self, name: str, timeout_s: float | None) -> None:
        """Load the current version; raises EkibenError: unknown-model, not-ready or timeout."""
        with self._model_lock(name, timeout_s):
            self.scan()
            self._require_existing(name)
            self._tell_others(name, "load")
            self._registry.update(name, lambda e: replace(e, desired=True, fingerprint=None))
            if self._prover is not None:
                self._prover.records.discard(self._key(name, scan_model(*place_of(self._root, name))))
            self._load_requested(name)
            entry = self._registry[name]
            version = entry.candidate or entry.display_version
            if version.state != "READY":
                raise EkibenError("not-ready", version.not_ready_reason)

    def unload(self, name: str, timeout_s: float | None) -> None:
        """Stop serving the model until the next `load`; raises EkibenError: unknown-model or timeout."""
        with self._model_lock(name, timeout_s):
            self._require_existing(name)
            self._tell_others(name, "unload")
            self._unload(name)

    def report_failure(self, name: str, version: str | None, reason: str) -> None:
        """Stop serving this version because a health check failed; it serves again only after a new load."""

        def failed(entry: ModelEntry) -> ModelEntry:
            serving = entry.serving
            if serving is None or serving.state != "READY" or serving.version != version:
                return entry
            log.error("%s %s FAILED: %s", name, version, reason)
            return replace(entry, serving=serving.to("FAILED", reason=reason)).with_retry()

        self._registry.update(name, failed)

    def unload_drained(self) -> None:
        """Free the draining versions that no request holds, and forget removed models."""
        for name in self._registry.names():
            before = self._registry[name].draining
            entry = self._registry.update(name, ModelEntry.drop_unloaded)
            assert entry is not None, "only this method removes models"
            for version in set(before) - set(entry.draining):
                trim_heap()
                log.info("%s %s UNLOADED", name, version.version)
            for version in entry.draining:
                self._collect_if_stuck(version)
            if entry.removed and not entry.draining:
                self._registry.remove(name)

    def _unload(self, name: str) -> None:
        self._registry.update(name, lambda e: e.start_draining(candidate=None, desired=False, fingerprint=None))
        log.info("%s: unloaded by request", name)

    def _tell_others(self, name: str, action: Action) -> None:
        try:
            self._followed[name] = self._desired.write(name, action)
        except OSError as error:
            reason = f"the other workers could not be told to {action} it: {error.strerror}"
            raise EkibenError("not-ready", f"{name}: {reason}") from error

    def _follow_requests(self) -> None:
        """Unload, or mark for loading, what a request to another worker named; a model that is busy is next time's."""
        for name, desired in self._desired.read().items():
            if self._followed.get(name) == desired or self._registry.get(name) is None:
                continue
            with suppress(EkibenError), self._model_lock(name, 0):
                self._followed[name] = desired
                if desired.action == "unload":
                    self._unload(name)
                else:
                    self._registry.update(name, lambda e: replace(e, desired=True, fingerprint=None))

    def _require_existing(self, name: str) -> None:
        if self._registry[name].removed:
            raise EkibenError("unknown-model", f"no model {name!r}: its folder was removed")

    def _load_model(self, name: str, closing: threading.Event, ticket: object, exclusive: bool) -> None:
        """Load the model's pending change, if any, as soon as there is a slot."""
        holding = self._slots.hold_fast(ticket, exclusive=exclusive)
        while True:
            try:
                with holding as slot, self._model_lock(name):
                    if not closing.is_set():
                        self._reconcile_model(name, slot)
                    return
            except SlowProofError:
                holding = self._slots.hold_slow()
            except ProofBusyError:
                closing.wait(BUSY_PROOF_S)
                holding = self._slots.hold_fast(self._slots.fast.enter(), exclusive=exclusive)

    def _load_requested(self, name: str) -> None:
        while True:
            try:
                return self._reconcile_model(name, self._slots.unlimited())
            except ProofBusyError:
                time.sleep(BUSY_PROOF_S)

    def _reconcile_model(self, name: str, slot: Slot) -> None:
        entry, change = self._registry[name], self._pending_change(name)
        if change is None:
            return
        is_serving = entry.model is not None and entry.model.manifest.version == change.version
        # The serving version is loaded again only if its folder is missing, so that the failure is reported.
        if is_serving and (place_of(self._root, name)[0] / str(change.version)).is_dir():
            self._registry.update(name, lambda e: replace(e, candidate=None, fingerprint=change.fingerprint))
        else:
            self._load_version(name, change, slot)

    def _pending_change(self, name: str) -> ScanResult | None:
        """Return the scan of a model that must be loaded, or None if it is up to date."""
        entry, found = self._registry[name], scan_model(*place_of(self._root, name))
        if entry.removed or not entry.desired:
            return None
        retry = entry.retry_at is not None and time.monotonic() >= entry.retry_at
        return found if entry.fingerprint != found.fingerprint or retry else None

    def _load_version(self, name: str, change: ScanResult, slot: Slot) -> None:
        version = loading = Version(name=name, version=change.version)
        before = self._registry[name]
        self._registry.update(name, partial(replace, candidate=loading, fingerprint=change.fingerprint, retry_at=None))
        try:
            for version in self._stages(loading, change, slot):
                self._registry.update(name, partial(replace, candidate=version))
        except (SlowProofError, ProofBusyError):
            self._registry.update(name, partial(replace, fingerprint=before.fingerprint, retry_at=before.retry_at))
            raise
        except Exception as error:  # noqa: BLE001 - a broken bundle must not keep other models from being loaded
            self._mark_failed(version, error)
        else:
            replaced = self._registry[name].serving
            log.info(
                "%s %s READY on %s after %.2f s, at most %.1e from PyTorch%s",
                name,
                version.version,
                version.provider,
                version.load_s,
                max((version.measured or {}).values(), default=0.0),
                f"; {replaced.version} drains" if replaced else "",
            )
            self._registry.update(name, ModelEntry.promote_candidate)

    def _stages(self, version: Version, change: ScanResult, slot: Slot) -> Iterator[Version]:
        """Prove the version in a child process, then load it here; raises the error that stops either."""
        if change.version is None:
            assert change.problem is not None
            raise change.problem
        folder = place_of(self._root, version.name)[0] / change.version
        if self._prover is None:
            yield from self._loader.stages(version, folder)
            return
        key, records = self._key(version.name, change), self._prover.records
        if records.deaths(key) >= MAX_DEATHS:
            raise BundleError(
                f"{version.label}: a worker died while loading it, {MAX_DEATHS} times; it is loaded again when its "
                "files change, or by request"
            )
        proof = self._prover.prove(
            version.label,
            key,
            folder,
            num_bytes=change.num_bytes,
            mapped_bytes=change.mapped_bytes,
            slot=slot,
        )
        with records.loading(key):
            yield from self._loader.stages(version, folder, proof)

    def _key(self, name: str, change: ScanResult) -> str:
        return record_key(name, change.version, change.fingerprint)

    def _deaths(self, name: str, change: ScanResult) -> int:
        return self._prover.records.deaths(self._key(name, change)) if self._prover is not None else 0

    def _mark_failed(self, version: Version, error: Exception) -> None:
        reason = failure_reason(error, f"{version.label}: {version.state}")
        passes = is_shortage(error)
        is_expected = passes or isinstance(error, BundleError | DeviceError | CallTimeoutError)
        entry = self._registry.get(version.name)
        still_serving = f"; {entry.model.manifest.version} is still being served" if entry and entry.model else ""
        title = " ".join(filter(None, (version.name, version.version)))
        log.error("%s FAILED: %s%s", title, reason, still_serving, exc_info=not is_expected)
        failed = version.to("FAILED", reason=reason)
        self._registry.update(version.name, lambda e: replace(e, candidate=failed).with_retry(is_shortage=passes))

    def _set_error(self, error: str | None) -> None:
        if error is not None and error != self._registry.folder_error:
            log.error("%s", error)
        self._registry.folder_error = error

    def _collect_if_stuck(self, version: Version) -> None:
        """Collect garbage once if the version drains slowly: a failed request can leave it in a cycle of frames."""
        if version not in self._slow and time.monotonic() - version.state_since > SLOW_DRAIN_S:
            self._slow.add(version)
            gc.collect()
            if version.in_use:
                log.warning("%s %s is still held by a request after %g s", version.name, version.version, SLOW_DRAIN_S)

    @contextmanager
    def _model_lock(self, name: str, timeout_s: float | None = None) -> Iterator[None]:
        lock = self._model_locks.setdefault(name, threading.Lock())
        if not lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise EkibenError("timeout", f"{name}: another load or unload is still running after {timeout_s:g} s")
        try:
            yield
        finally:
            lock.release()
