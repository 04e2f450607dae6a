"""Run golden cases of every model periodically, on the serving session and without queueing.

Invariant: a READY model is reported within one round plus the timeout if its session no longer reproduces a golden
case, does not return within the timeout, or hangs in a run for a request.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.engine.process.call_timeout import CallTimeoutError, call_with_timeout
from service.engine.repository.loader import failure_reason
from service.engine.repository.registry import ModelRegistry
from service.engine.verification.parity import replay_cases


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The number of successful checks of this version, and the Unix time of the last one."""

    version: str | None
    passed: int = 0
    at: float | None = None


@dataclass(kw_only=True)
class HealthCheck:
    """`round_s` is the interval of checks per model; `timeout_s` limits each check and each run for a request."""

    registry: ModelRegistry
    report_failure: Callable[[str, str | None, str], None]  # (model name, version, reason)
    round_s: float
    timeout_s: float
    _results: dict[str, CheckResult] = field(default_factory=dict, init=False)

    def run(self, closing: threading.Event) -> None:
        """Check one model after the other, evenly spread over the round, until `closing` is set."""
        while True:
            names = self.registry.names()
            for name in names:
                if closing.wait(self.round_s / len(names)):
                    return
                self.check(name)
            if not names and closing.wait(self.round_s):
                return

    def check(self, name: str) -> None:
        """Run the next golden case of the serving version, if it is READY."""
        entry = self.registry.get(name)
        version = entry.serving if entry is not None else None
        if version is None or version.model is None:
            return
        passed = self.last_result(name, version.version).passed
        number = passed % len(version.golden)
        try:
            if version.model.session.longest_run_s() > self.timeout_s:
                raise CallTimeoutError(f"a request has been computed for longer than {self.timeout_s:g} s")
            call_with_timeout(self.timeout_s, replay_cases, version.model.session, {number: version.golden[number]})
        except Exception as error:  # noqa: BLE001 - any error means that this version must not serve
            reason = failure_reason(error, str(version.provider))
            self.report_failure(name, version.version, f"{version.label}: health check: {reason}")
        else:
            self._results[name] = CheckResult(version=version.version, passed=passed + 1, at=time.time())

    def last_result(self, name: str, version: str | None) -> CheckResult:
        """Return the last successful check of this version; `passed` is 0 before the first."""
        result = self._results.get(name)
        return result if result is not None and result.version == version else CheckResult(version=version)
