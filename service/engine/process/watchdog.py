"""Ends a process that will answer nobody any more, so that another can take its place.

Two things can stop for good where no deadline helps: an event loop that runs a model which never returns, and the last
thread that computes. Both are looked at from a thread of its own; what counts is looks, not the clock, as a process
that was stopped for a while has stopped its watchdog, too.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from service.engine.process.call_timeout import LOOKS

log = logging.getLogger(__name__)


class Watchdog(threading.Thread):
    """`progress_token` gives a number while nothing more could be computed, a new one with whatever ends, else None."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        progress_token: Callable[[], int | None],
        hang_s: float,
        end: Callable[[], None],
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._loop = loop
        self._stuck_at = progress_token
        self._hang_s = hang_s
        self._end = end
        self._turned = True  # has the event loop, since the last look?
        self._idle_looks = self._stuck_looks = 0
        self._was_stuck_at: int | None = None

    def run(self) -> None:
        while True:
            time.sleep(self._hang_s / LOOKS)
            try:
                reason = self.look()
            except RuntimeError:  # the event loop has ended
                return
            if reason is not None:
                log.critical("%s for longer than %g s: this process ends", reason, self._hang_s)
                self._end()
                return

    def look(self) -> str | None:
        """What has stopped for too long, or None. Raises RuntimeError if the event loop is closed."""
        self._idle_looks = 0 if self._turned else self._idle_looks + 1
        if self._turned:
            self._turned = False
            self._loop.call_soon_threadsafe(self._turn)
        progress_token = self._stuck_at()
        is_same = progress_token is not None and progress_token == self._was_stuck_at
        self._stuck_looks = self._stuck_looks + 1 if is_same else 0
        self._was_stuck_at = progress_token
        if self._idle_looks > LOOKS:
            return "the event loop has been held up"
        return "every thread that computes has been busy with the same" if self._stuck_looks > LOOKS else None

    def _turn(self) -> None:
        self._turned = True


def kill() -> None:
    """At once: what hangs in a library hears of no other way."""
    os.kill(os.getpid(), signal.SIGKILL)
