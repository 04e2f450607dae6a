"""One model of the registry: the version that serves, the candidate that may replace it, and the versions that drain.

Invariant: at most one version serves: READY, or FAILED by the health check. A candidate replaces it in one step.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

from service.engine.repository.scan import CANDIDATE, Fingerprint
from service.engine.repository.version import Version
from service.engine.sessions.model import Model

MIN_RETRY_S, MAX_RETRY_S = 5.0, 300.0


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """An immutable snapshot of one model or candidate; every change returns a new object.

    `required`: the service is not ready without this model, because it existed at the start or has been READY; a
    candidate never is.
    `desired`: false between an unload and the next load. `removed`: its folder is gone. `fingerprint`: the files of the
    last attempt to load. `retry_at`: when to load again after a shortage, or after the serving version has failed
    (`time.monotonic`).
    """

    name: str
    serving: Version | None = None
    candidate: Version | None = None
    draining: tuple[Version, ...] = ()
    required: bool = False
    desired: bool = True
    removed: bool = False
    fingerprint: Fingerprint | None = None
    retry_at: float | None = None
    retry_s: float = MIN_RETRY_S

    @property
    def model(self) -> Model | None:
        """The model that requests use: None unless the serving version is READY."""
        return self.serving.model if self.serving is not None else None

    @property
    def display_version(self) -> Version:
        """The version that /models shows: the serving one, else the candidate, else the last that drains."""
        if self.serving or self.candidate or self.draining:
            return self.serving or self.candidate or self.draining[-1]
        if self.desired and not self.removed:
            return Version(name=self.name)
        reason = f"{self.name}: its folder was removed" if self.removed else f"{self.name} was unloaded by request"
        return Version(name=self.name, state="UNLOADED", reason=reason)

    def promote_candidate(self) -> "ModelEntry":
        """Make the READY candidate serve; the version that served before drains."""
        assert self.candidate is not None
        assert self.candidate.model is not None
        required = not self.name.endswith(CANDIDATE)
        drained = self.start_draining(candidate=None, required=required, retry_at=None, retry_s=MIN_RETRY_S)
        return replace(drained, serving=self.candidate)

    def start_draining(self, **changes: Any) -> "ModelEntry":
        """Stop serving, so that the version that served before drains; `changes` are other fields."""
        drained = (self.serving.to("DRAINING"),) if self.serving else ()
        return replace(self, serving=None, draining=self.draining + drained, **changes)

    def drop_unloaded(self) -> "ModelEntry":
        """Remove the draining versions that no request holds: they are UNLOADED."""
        return replace(self, draining=tuple(version for version in self.draining if version.in_use))

    def with_retry(self, *, is_shortage: bool = False) -> "ModelEntry":
        """Schedule another load after a shortage, or if the serving version has failed; the delay doubles each time.

        Otherwise nothing is scheduled: a fault of the files stays until they change.
        """
        if not is_shortage and (self.serving is None or self.serving.state != "FAILED"):
            return replace(self, retry_at=None, retry_s=MIN_RETRY_S)
        return replace(self, retry_at=time.monotonic() + self.retry_s, retry_s=min(2 * self.retry_s, MAX_RETRY_S))
