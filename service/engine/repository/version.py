"""The states of a version of a model, and which may follow which.

    LOADING -> VERIFYING -> WARMING -> READY -> DRAINING -> UNLOADED
        any of the first four -> FAILED(reason) -> DRAINING, if it had served

LOADING opens the bundle and makes the session; VERIFYING replays the goldens and request cases on the device; WARMING
runs every admitted shape; DRAINING waits for the requests that hold the version. Invariant: a version has a model (and
may be given to a request) if and only if it is READY.
"""

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from service.bundle import GoldenCase, Manifest
from service.engine.process.memory import Memory
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.engine.verification.warmup import Warmed

State = Literal["LOADING", "VERIFYING", "WARMING", "READY", "DRAINING", "UNLOADED", "FAILED"]

EDGES: Mapping[State, frozenset[State]] = {
    "LOADING": frozenset({"VERIFYING", "FAILED"}),
    "VERIFYING": frozenset({"WARMING", "FAILED"}),
    "WARMING": frozenset({"READY", "FAILED"}),
    "READY": frozenset({"DRAINING", "FAILED"}),
    "DRAINING": frozenset({"UNLOADED"}),
    "UNLOADED": frozenset(),
    "FAILED": frozenset({"DRAINING"}),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Version:
    """One version of a model at one moment; a later moment is another object.

    `manifest` is there once the bundle was opened. `held` refers to the session without keeping it: while it finds
    one, somebody computes with this version.
    """

    name: str
    state: State = "LOADING"
    reason: str | None = None
    version: str | None = None
    manifest: Manifest | None = None
    model: Model | None = None
    held: "weakref.ref[Session] | None" = None
    golden: tuple[GoldenCase, ...] = ()
    provider: str | None = None
    measured: Mapping[str, float] | None = None  # output -> largest difference to PyTorch, here, at load
    warmed: Warmed | None = None
    memory: Memory | None = None
    load_s: float | None = None
    since: float = field(default_factory=time.monotonic)  # when it came into this state

    def to(self, state: State, **changes: Any) -> "Version":
        """This version in its next state; a model leaves with READY."""
        if state not in EDGES[self.state]:
            raise AssertionError(f"{self.name} {self.version}: {self.state} -> {state} is no edge")
        if state == "READY":
            changes = {**changes, "held": weakref.ref(changes["model"].session)}
        elif self.state == "READY":
            changes = {**changes, "model": None, "golden": ()}
        return replace(self, state=state, since=time.monotonic(), **changes)

    @property
    def in_use(self) -> bool:
        """Whether anything still holds the session."""
        return self.held is not None and self.held() is not None
