"""Giving up at the deadline, with one timer for all requests whose deadlines are a few milliseconds apart.

A request is given up at its deadline or up to a tick later, never before, and is let go as soon as it is settled.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from service.engine.request import Request

TICKS_PER_S = 128


class Alarms:
    def __init__(self, ring: Callable[[Sequence[Request]], None]) -> None:
        self._ring = ring
        self._ticks: dict[tuple[asyncio.AbstractEventLoop, int], dict[Request, None]] = {}

    def set(self, request: Request) -> None:
        """To be called on the request's event loop."""
        tick = math.ceil(request.deadline * TICKS_PER_S)
        key = request.loop, tick
        waiting = self._ticks.get(key)
        if waiting is None:
            waiting = self._ticks[key] = {}
            request.loop.call_later(max(tick / TICKS_PER_S - time.monotonic(), 0.0), self._fire, key)
        waiting[request] = None
        request.alarm = waiting

    def _fire(self, key: tuple[asyncio.AbstractEventLoop, int]) -> None:
        waiting = self._ticks.pop(key)
        if waiting:
            self._ring(list(waiting))
