"""One model of the catalog: the version in service, the one that may follow it, those that drain.

Invariant: at most one version is in service, it is READY or was until the heartbeat found it wrong, and taking its
place is one step.
"""

import time
from dataclasses import dataclass, replace

from service.engine.repository.scan import Stamp
from service.engine.repository.version import Version
from service.engine.sessions.model import Model

FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0  # after what is in service was found to be wrong


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model at one moment; a later moment is another object.

    `required`: the service is not ready without it (it was there at the start, or has been READY). `wanted` is false
    between an unload and the next load, `gone` true once its folder was removed.
    """

    name: str
    serving: Version | None = None
    candidate: Version | None = None
    draining: tuple[Version, ...] = ()
    required: bool = False
    wanted: bool = True
    gone: bool = False
    stamp: Stamp | None = None  # of the files that the last attempt to load was made from
    retry_at: float | None = None
    retry_s: float = FIRST_RETRY_S

    @property
    def model(self) -> Model | None:
        """What a request gets: there if and only if the version in service is READY."""
        return self.serving.model if self.serving is not None else None

    @property
    def shown(self) -> Version:
        """The version that stands for the model: the one in service, else the next, else the one that leaves."""
        if self.serving or self.candidate or self.draining:
            return self.serving or self.candidate or self.draining[-1]
        if self.wanted and not self.gone:
            return Version(name=self.name)
        return Version(name=self.name, state="UNLOADED", reason=f"{self.name} was unloaded by request")

    def followed_by(self, version: Version) -> "Entry":
        """With this version, at this moment, as the one that may take over."""
        return replace(self, candidate=version)

    def swapped(self) -> "Entry":
        """The candidate, now READY, takes over; what served before drains."""
        assert self.candidate is not None
        assert self.candidate.model is not None
        fresh = replace(self.retired(), required=True, retry_at=None, retry_s=FIRST_RETRY_S)
        return replace(fresh, serving=self.candidate, candidate=None)

    def retired(self) -> "Entry":
        """Nothing in service; what served drains."""
        if self.serving is None:
            return self
        return replace(self, serving=None, draining=(*self.draining, self.serving.to("DRAINING")))

    def swept(self) -> "Entry":
        """Without the versions that nobody holds any more: they are UNLOADED."""
        return replace(self, draining=tuple(version for version in self.draining if version.in_use))

    def later(self) -> "Entry":
        """Where what is in service was found to be wrong: to be loaded anew after a while, longer each time."""
        if self.serving is None or self.serving.state != "FAILED":
            return self
        return replace(self, retry_at=time.monotonic() + self.retry_s, retry_s=min(2 * self.retry_s, LAST_RETRY_S))
