"""Which models were loaded or unloaded by request, for all workers of one host.

Invariant: the last request for a model counts, and a worker that starts later finds it. It ends with the host.
"""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

Action = Literal["load", "unload"]
ACTIONS: dict[str, Action] = {"load": "load", "unload": "unload"}

log = logging.getLogger(__name__)


class DesiredState(NamedTuple):
    """The last request for a model; `stamp` differs from that of every earlier one."""

    action: Action
    stamp: str


class DesiredModels:
    """One small file for each model, in a folder that the workers share; without a folder there is one worker."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / "desired"

    def write(self, name: str, action: Action) -> DesiredState:
        """Tell the other workers; raises OSError."""
        desired = DesiredState(action, f"{time.time_ns()}-{os.getpid()}")
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            temporary = self._folder / f".{name}-{os.getpid()}"
            temporary.write_text(" ".join(desired))
            temporary.replace(self._folder / name)
        return desired

    def read(self) -> dict[str, DesiredState]:
        """Return the last request for each model for which there was one."""
        found: dict[str, DesiredState] = {}
        if self._folder is None:
            return found
        try:
            paths = sorted(self._folder.iterdir())
        except OSError:  # nobody has made it yet, or a cleaner of temporary files has deleted it
            return found
        for path in paths:
            with suppress(OSError, ValueError):
                action, _, stamp = path.read_text().partition(" ")
                if not path.name.startswith(".") and action in ACTIONS:
                    found[path.name] = DesiredState(ACTIONS[action], stamp)
        return found

    def discard(self, name: str) -> None:
        """Forget the requests for a model whose folder was removed."""
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)
