"""Keep what is served in step with what lies in the folder of bundles.

Invariant: a version takes over only when it is READY, in one step, and what it replaces stays whole until nobody holds
it; a version that fails changes nothing but what is said about it.
"""

import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from service.engine.process.call_timeout import HungError
from service.engine.process.memory import give_back
from service.engine.repository.entry import Entry
from service.engine.repository.loader import Loader, in_words
from service.engine.repository.registry import Catalog
from service.engine.repository.scan import Found, look, model_names
from service.engine.repository.version import Version
from service.errors import BundleError, DeviceError, EkibenError

SLOW_DRAIN_S = 10.0  # a version that is held for longer is looked for among cyclic garbage, and spoken of

log = logging.getLogger(__name__)


class Keeper:
    """`at_once` models are loaded at the same time, each one version at a time: `load` and `unload` wait their turn."""

    def __init__(self, root: Path, catalog: Catalog, loader: Loader, *, at_once: int = 1) -> None:
        self._root = root
        self._catalog = catalog
        self._loader = loader
        self._at_once = at_once
        self._turns: dict[str, threading.Lock] = {}
        self._slow: set[Version] = set()
        self._passed_over: set[str] = set()

    def scan(self, *, first: bool = False) -> None:
        """Note which models there are and which have left; load none."""
        try:
            names, others = model_names(self._root)
        except OSError as error:
            return self._in_trouble(f"cannot read the folder of bundles {self._root}: {error.strerror}")
        for other in set(others) - self._passed_over:
            log.warning("%r in %s is passed over: no model may have this name", other, str(self._root))
        self._passed_over = set(others)
        for name in names:
            known = name in self._catalog and not self._catalog[name].gone
            if not known and (first or look(self._root / name).version is not None):  # else it is still being written
                self._catalog.add(name, required=first)
        for entry in self._catalog.all():
            if entry.name not in names and not entry.gone:
                log.warning("%s: its folder was removed: no longer served", entry.name)
                self._catalog.update(entry.name, lambda e: replace(e.retired(), candidate=None, gone=True))
        return self._in_trouble(None if names else f"the folder of bundles {self._root} is empty: export a model first")

    def follow_all(self, closing: threading.Event) -> None:
        """Load what is new, changed or due for another try; nothing while the folder as a whole is in trouble."""
        if self._catalog.trouble is not None:
            return
        due = deque(name for name in self._catalog.names() if self._found(name) is not None)
        helpers = [
            threading.Thread(target=self._follow_each, args=(due, closing), name="loading", daemon=True)
            for _ in range(min(len(due), self._at_once) - 1)
        ]
        for helper in helpers:
            helper.start()
        self._follow_each(due, closing)
        for helper in helpers:
            helper.join()

    def load(self, name: str, timeout_s: float | None) -> None:
        with self._turn_of(name, timeout_s):
            self.scan()
            self._known(name)
            self._catalog.update(name, lambda e: replace(e, wanted=True, stamp=None))
            self._follow(name)
            entry = self._catalog[name]
            failed = entry.candidate if entry.candidate is not None else entry.shown
            if failed.state != "READY":
                raise EkibenError("not-ready", failed.reason or f"{name} is {failed.state}")

    def unload(self, name: str, timeout_s: float | None) -> None:
        with self._turn_of(name, timeout_s):
            self._known(name)
            self._catalog.update(name, lambda e: replace(e.retired(), candidate=None, wanted=False, stamp=None))
            log.info("%s: unloaded by request", name)

    def fail(self, name: str, version: str | None, reason: str) -> None:
        """What serves turned out to be wrong; it is not served again before it was loaded anew."""

        def failed(entry: Entry) -> Entry:
            serving = entry.serving
            if serving is None or serving.state != "READY" or serving.version != version:
                return entry
            log.error("%s %s FAILED: %s", name, version, reason)
            return replace(entry, serving=serving.to("FAILED", reason=reason)).later()

        self._catalog.update(name, failed)

    def sweep(self) -> None:
        """Free what nobody holds any more."""
        for name in self._catalog.names():
            before = self._catalog[name].draining
            after = self._catalog.update(name, Entry.swept).draining if before else before
            for version in set(before) - set(after):
                self._slow.discard(version)
                give_back()
                log.info("%s %s UNLOADED", name, version.version)
            self._hurry(after)
            if self._catalog[name].gone and not after:
                self._catalog.remove(name)

    def _known(self, name: str) -> None:
        if self._catalog[name].gone:
            raise EkibenError("unknown-model", f"no model {name!r}: its folder was removed")

    def _follow_each(self, due: deque[str], closing: threading.Event) -> None:
        while not closing.is_set():
            try:
                name = due.popleft()
            except IndexError:
                return
            with self._turn_of(name):
                self._follow(name)

    def _follow(self, name: str) -> None:
        entry, found = self._catalog[name], self._found(name)
        if found is None:
            return
        served = entry.model is not None and entry.model.manifest.version == found.version
        if served and (self._root / name / str(found.version)).is_dir():  # back to it; if removed, loading says so
            self._catalog.update(name, lambda e: replace(e, candidate=None, stamp=found.stamp))
            return
        self._attempt(name, found)

    def _found(self, name: str) -> Found | None:
        """What is to be loaded, if anything."""
        entry, found = self._catalog[name], look(self._root / name)
        if entry.gone or not entry.wanted:
            return None
        retry = entry.retry_at is not None and time.monotonic() >= entry.retry_at
        return found if entry.stamp != found.stamp or retry else None

    def _attempt(self, name: str, found: Found) -> None:
        version = Version(name=name, version=found.version)
        self._catalog.update(name, lambda entry: replace(entry, candidate=version, stamp=found.stamp))
        stages = self._stages(version, found)
        try:
            while version.state != "READY":
                version = next(stages)
                self._catalog.update(name, partial(Entry.followed_by, version=version))
        except Exception as error:  # noqa: BLE001 - whatever a bundle does, the other models are loaded
            self._give_up(version, error)
        else:
            self._swap(version)

    def _stages(self, version: Version, found: Found) -> Iterator[Version]:
        if found.problem is not None:
            raise BundleError(found.problem)
        assert found.version is not None
        yield from self._loader.stages(version, self._root / version.name / found.version)

    def _give_up(self, version: Version, error: Exception) -> None:
        reason = in_words(error, version)
        expected = isinstance(error, BundleError | DeviceError | HungError)
        model = self._catalog[version.name].model
        goes_on = f"; {model.manifest.version} goes on serving" if model is not None else ""
        log.error("%s %s FAILED: %s%s", version.name, version.version, reason, goes_on, exc_info=not expected)
        self._catalog.update(version.name, lambda e: replace(e, candidate=version.to("FAILED", reason=reason)).later())

    def _swap(self, version: Version) -> None:
        before = self._catalog[version.name].serving
        log.info(
            "%s %s READY on %s, %.1e from PyTorch, in %.2f s%s",
            version.name,
            version.version,
            version.provider,
            max((version.measured or {}).values(), default=0.0),
            version.load_s or 0.0,
            f"; {before.version} drains" if before is not None else "",
        )
        self._catalog.update(version.name, Entry.swapped)

    def _in_trouble(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self._catalog.trouble:
            log.error("%s", trouble)
        self._catalog.trouble = trouble

    def _hurry(self, draining: tuple[Version, ...]) -> None:
        """Once for each version that is held for long: what a failed request left in a cycle of frames goes, if any."""
        for version in draining:
            if version not in self._slow and time.monotonic() - version.since > SLOW_DRAIN_S:
                self._slow.add(version)
                gc.collect()
                if version.in_use:
                    log.warning(
                        "%s %s is still held by a request after %g s", version.name, version.version, SLOW_DRAIN_S
                    )

    @contextmanager
    def _turn_of(self, name: str, timeout_s: float | None = None) -> Iterator[None]:
        turn = self._turns.setdefault(name, threading.Lock())
        if not turn.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise EkibenError("timeout", f"{name} is being loaded for longer than {timeout_s:g} s")
        try:
            yield
        finally:
            turn.release()
