"""A golden case of every model, run again and again while the models serve.

Invariant: a READY model whose session gives another answer than at its load, or none within the bound, is reported
within one round and the bound; so is one in which any run for a request hangs. The case runs on the session that
serves, beside the requests, not in their queue: it tells of the device, not of the load.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.engine.process.call_timeout import HungError, bounded
from service.engine.repository.registry import Catalog
from service.engine.repository.version import Version
from service.engine.verification.parity import replay_cases
from service.errors import BundleError

log = logging.getLogger(__name__)

Fail = Callable[[str, str | None, str], None]


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The last time a version was checked: Unix time, and how many checks it has passed since it was loaded."""

    version: str | None
    passed: int
    at: float


class Heartbeat:
    """`round_s`: how often each model is checked; `bound_s`: how long an answer may take, also to a request."""

    def __init__(self, catalog: Catalog, fail: Fail, *, round_s: float, bound_s: float) -> None:
        self.round_s = round_s
        self._catalog = catalog
        self._fail = fail
        self._bound_s = bound_s
        self._beats: dict[str, Beat] = {}

    def run(self, closing: threading.Event) -> None:
        """Check one model after the other, evenly over the round, until closing."""
        while True:
            names = self._catalog.names()
            for name in names:
                if closing.wait(self.round_s / len(names)):
                    return
                self.check(name)
            if not names and closing.wait(self.round_s):
                return

    def check(self, name: str) -> None:
        """Run the next golden case of the version in service, if it is READY."""
        version = self._version(name)
        if version is None or version.model is None:
            return
        last = self._beats.get(name)
        passed = last.passed if last is not None and last.version == version.version else 0
        number = passed % len(version.golden)
        try:
            if version.model.session.busy_s() > self._bound_s:
                raise HungError(f"a request has been computed for longer than {self._bound_s:g} s")
            bounded(self._bound_s, replay_cases, version.model.session, {number: version.golden[number]})
        except Exception as error:  # noqa: BLE001 - whatever it is, this version cannot be trusted
            self._fail(name, version.version, _in_words(error, version))
        else:
            self._beats[name] = Beat(version=version.version, passed=passed + 1, at=time.time())

    def last(self, name: str, version: str | None) -> Beat | None:
        beat = self._beats.get(name)
        return beat if beat is not None and beat.version == version else None

    def _version(self, name: str) -> Version | None:
        entry = self._catalog.find(name)
        return None if entry is None else entry.serving


def _in_words(error: Exception, version: Version) -> str:
    where = f"{version.name}/{version.version}: heartbeat"
    match error:
        case BundleError():
            return f"{where}: {error}"
        case HungError():
            return f"{where}: {version.provider} hangs: {error}"
        case _:
            return f"{where}: a golden case failed on {version.provider}: {type(error).__name__}: {error}"
