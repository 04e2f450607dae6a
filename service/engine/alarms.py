"""Giving up at the deadline, with one timer for all requests whose deadlines are a few milliseconds apart.

A request is given up at its deadline or up to a tick later, never before, and is let go as soon as it is settled.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextvars import Context

from service.engine.request import Request

TICKS_PER_S = 128
AHEAD_S = 60.0  # who has longer is asked again then, as a moment is kept until it comes


class Alarms:
    def __init__(self, ring: Callable[[Sequence[Request]], None]) -> None:
        self._ring = ring
        self._ticks: dict[asyncio.AbstractEventLoop, dict[int, dict[Request, None]]] = {}

    def set(self, request: Request) -> None:
        """To be called on the request's event loop."""
        now = time.monotonic()
        tick = math.ceil(min(request.deadline, now + AHEAD_S) * TICKS_PER_S)
        ticks = self._ticks.get(request.loop)
        if ticks is None:
            open_ones = {loop: ticks for loop, ticks in list(self._ticks.items()) if not loop.is_closed()}
            ticks = {}
            self._ticks = {**open_ones, request.loop: ticks}
        waiting = ticks.get(tick)
        if waiting is None:
            waiting = ticks[tick] = {}
            after_s = max(tick / TICKS_PER_S - now, 0.0)
            request.loop.call_later(after_s, self._fire, ticks, tick, context=Context())  # the caller's holds its body
        waiting[request] = None
        request.alarm = waiting

    def _fire(self, ticks: dict[int, dict[Request, None]], tick: int) -> None:
        waiting = ticks.pop(tick)
        due = [request for request in waiting if request.deadline <= tick / TICKS_PER_S]
        if due:
            self._ring(due)
        for request in waiting.keys() - due:
            self.set(request)
