"""One version of a model, and the transitions between its states.

    LOADING -> VERIFYING -> WARMING -> READY -> DRAINING -> UNLOADED
        any of the first four -> FAILED(reason) -> DRAINING, if the version was READY before

LOADING has a child process open and check the bundle, then opens it here and creates the session; on a GPU, another one
has shown before how much memory it needs. VERIFYING replays the goldens on the device, and runs the checks that the
child's proof does not cover. WARMING runs every admitted shape. DRAINING waits for the requests that hold the version.
Invariant: a version has a model, and may be used by requests, if and only if it is READY.
"""

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from service.bundle import GoldenCase
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.manifest import Manifest

State = Literal["LOADING", "VERIFYING", "WARMING", "READY", "DRAINING", "UNLOADED", "FAILED"]

TRANSITIONS = {
    *pairwise(("LOADING", "VERIFYING", "WARMING", "READY", "DRAINING", "UNLOADED")),
    *((state, "FAILED") for state in ("LOADING", "VERIFYING", "WARMING", "READY")),
    ("FAILED", "DRAINING"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Version:
    """An immutable snapshot of one version; a transition returns a new object.

    `manifest` is set once the bundle is open. `session_ref` is weak: it is dead once no request holds the session.
    `measured` (the largest difference to PyTorch by output), `warmup` and `memory` were measured on this machine when
    the version was loaded. `state_since` is the `time.monotonic` of the last transition.
    """

    name: str
    state: State = "LOADING"
    reason: str | None = None
    version: str | None = None
    manifest: Manifest | None = None
    model: Model | None = None
    session_ref: "weakref.ref[Session] | None" = None
    golden: tuple[GoldenCase, ...] = ()
    provider: str | None = None
    measured: Mapping[str, float] | None = None
    warmup: Mapping[str, float] | None = None
    memory: Mapping[str, Any] | None = None
    load_s: float | None = None
    state_since: float = field(default_factory=time.monotonic)

    def to(self, state: State, **changes: Any) -> "Version":
        """Return this version in its next state; leaving READY drops the model."""
        if (self.state, state) not in TRANSITIONS:
            raise AssertionError(f"{self.name} {self.version}: {self.state} -> {state} is not a transition")
        if state == "READY":
            changes["session_ref"] = weakref.ref(changes["model"].session)
        elif self.state == "READY":
            changes |= {"model": None, "golden": ()}
        return replace(self, state=state, state_since=time.monotonic(), **changes)

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}" if self.version else self.name

    @property
    def not_ready_reason(self) -> str:
        return self.reason or f"{self.name} is {self.state}"

    @property
    def in_use(self) -> bool:
        """Whether anything still holds the session."""
        return self.session_ref is not None and self.session_ref() is not None
