"""Kill a process that can no longer answer requests, so that the master replaces it.

Two failures survive every deadline: an event loop blocked by a model that never returns, and compute threads that all
hang. The watchdog counts checks and reads no clock, because a process that was stopped has stopped its watchdog, too.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from service.engine.process.call_timeout import NUM_CHECKS

log = logging.getLogger(__name__)


class Watchdog(threading.Thread):
    """Call `terminate` once the event loop or all compute threads have made no progress for `hang_s`.

    `progress_token` returns None while a compute thread is free, else a number that changes whenever a run ends.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        progress_token: Callable[[], int | None],
        hang_s: float,
        terminate: Callable[[], None],
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._loop = loop
        self._progress_token = progress_token
        self._hang_s = hang_s
        self._terminate = terminate
        self._loop_failures = self._compute_failures = 0
        self._last_token: int | None = None

    def run(self) -> None:
        while True:
            time.sleep(self._hang_s / NUM_CHECKS)
            try:
                reason = self.check()
            except RuntimeError:  # the event loop is closed
                return
            if reason is not None:
                log.critical("%s for more than %g s: killing this process", reason, self._hang_s)
                self._terminate()
                return

    def check(self) -> str | None:
        """Return what has hung for too long, or None. Raises RuntimeError if the event loop is closed."""
        if self._loop_failures > NUM_CHECKS:
            return "the event loop has been blocked"
        self._loop_failures += 1
        self._loop.call_soon_threadsafe(self._on_loop_response)
        token = self._progress_token()
        is_stuck = token is not None and token == self._last_token
        self._compute_failures = self._compute_failures + 1 if is_stuck else 0
        self._last_token = token
        return "every compute thread has been busy with the same run" if self._compute_failures > NUM_CHECKS else None

    def _on_loop_response(self) -> None:
        self._loop_failures = 0


def kill() -> None:
    """Send SIGKILL to this process: code that hangs inside a library reacts to no other signal."""
    os.kill(os.getpid(), signal.SIGKILL)
