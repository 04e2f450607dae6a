"""Requests expire at their deadline, with one timer for all requests whose deadlines are a few milliseconds apart.

A request expires at its deadline or up to one tick later, never before, and leaves its timer as soon as it is done.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextvars import Context

from service.engine.batching.request import Request

TICKS_PER_S = 128
MAX_WAIT_S = 60.0  # a later deadline is looked at again after this time: a far timer would keep its memory until then


class DeadlineTimers:
    def __init__(self, on_expired: Callable[[Sequence[Request]], None]) -> None:
        self._on_expired = on_expired
        self._ticks: dict[asyncio.AbstractEventLoop, dict[int, dict[Request, None]]] = {}

    def add(self, request: Request) -> None:
        """To be called on the event loop of the request."""
        now = time.monotonic()
        tick = math.ceil(min(request.deadline, now + MAX_WAIT_S) * TICKS_PER_S)
        ticks = self._ticks.get(request.loop)
        if ticks is None:
            running = {loop: ticks for loop, ticks in list(self._ticks.items()) if not loop.is_closed()}
            ticks = {}
            self._ticks = {**running, request.loop: ticks}
        waiting = ticks.get(tick)
        if waiting is None:
            waiting = ticks[tick] = {}
            after_s = max(tick / TICKS_PER_S - now, 0.0)
            # An empty context: the timer outlives this request, and must not keep what its context holds.
            request.loop.call_later(after_s, self._fire, ticks, tick, context=Context())
        waiting[request] = None
        request.timer = waiting

    def _fire(self, ticks: dict[int, dict[Request, None]], tick: int) -> None:
        waiting = ticks.pop(tick)
        expired = [request for request in waiting if request.deadline <= tick / TICKS_PER_S]
        if expired:
            self._on_expired(expired)
        for request in waiting.keys() - expired:
            self.add(request)
