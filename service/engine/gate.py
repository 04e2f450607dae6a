"""Who is let in when others are waiting or being served already, and what those who are not are told.

A request is refused at once if its model's queue is full, or if it or another would then be answered too late; it is
told when to come back, and passes the others when it does. What a path was last refused for is remembered for a moment,
so that those who come next are refused before anybody reads what they ask. Not safe to share between threads.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from service.engine.admission import Admission, Forecast
from service.engine.appointments import Appointments, Visitor
from service.engine.counters import Counters, Refusal
from service.engine.limits import Limits
from service.engine.request import Piece, Request
from service.errors import EkibenError

PROBE_S = 1.0  # after so long without a measurement, what should be late is let in, to measure again
USED = 0.6  # of the time that a request has: on its way here and back it loses some that nobody sees here
USED_BY_RETURNERS = 0.8  # so there is always room for those who come back as told
PLACES = 0.8  # of a queue: for all others


class Demand(NamedTuple):
    """What a request takes."""

    counters: Counters
    work_s: float
    run_s: float
    until: float  # then a request is looked at again


class Gate:
    def __init__(self, slots: int, limits: Limits, admission: Admission) -> None:
        self._limits = limits
        self._admission = admission
        self._appointments = Appointments(slots)
        self._demands: dict[str, Demand] = {}  # by path

    def knock(self, visitor: Visitor, now: float, deadline: float) -> EkibenError | None:
        """Why nobody needs to read what this visitor asks, or None: `refusal` will say."""
        demand = self._demands.get(visitor.path)
        if demand is None:
            return None
        if demand.until < now:
            del self._demands[visitor.path]
            return None
        _, excess_s = self._forecast(now, deadline, demand, returns=False)
        if excess_s <= 0:
            return None
        if self._appointments.keep(now, visitor.fingerprint()):
            visitor.returns = True
            return None
        return self._refuse("overloaded", demand, visitor, now, excess_s)

    def refusal(self, request: Request, pieces: Sequence[Piece], now: float) -> EkibenError | None:
        """Why the request must not be queued, or None if it may."""
        batcher, visitor = request.batcher, request.visitor
        work_s = run_s = 0.0
        for piece in pieces:
            row_s, late_s = batcher.cost(piece.longest)
            piece.price_s = row_s * piece.count
            work_s += piece.price_s
            run_s = max(run_s, late_s)
        demand = Demand(batcher.counters, work_s, run_s, now + PROBE_S)
        returns = visitor is not None and self._returns(visitor, now)
        if batcher.num_rows and batcher.num_rows + request.num_rows > self._places(returns):
            return self._refuse("queue-full", demand, visitor, now, 0.0)
        foretold_s, excess_s = self._forecast(now, request.deadline, demand, returns=returns)
        if excess_s > 0 and now < batcher.observed_at + PROBE_S:
            if visitor is not None:
                self._demands[visitor.path] = demand
            return self._refuse("overloaded", demand, visitor, now, excess_s)
        request.foretold_s = foretold_s
        return None

    def _returns(self, visitor: Visitor, now: float) -> bool:
        if not visitor.returns and self._appointments:
            visitor.returns = self._appointments.keep(now, visitor.fingerprint())
        return visitor.returns

    def _places(self, returns: bool) -> int:
        """Items that may wait."""
        places = self._limits.max_queue_items
        return places if returns or not self._appointments else int(places * PLACES)

    def _forecast(self, now: float, deadline: float, demand: Demand, *, returns: bool) -> Forecast:
        kept_s = (1 - (USED_BY_RETURNERS if returns else USED)) * (deadline - now)
        return self._admission.forecast(now, deadline, demand.work_s, demand.run_s, kept_s)

    def _refuse(
        self, reason: Refusal, demand: Demand, visitor: Visitor | None, now: float, wait_s: float
    ) -> EkibenError:
        counters = demand.counters
        counters.refused[reason] += 1
        what = "the queue is full" if reason == "queue-full" else "it would be answered too late"
        detail = f"{what}; {counters.queued_items} items are waiting"
        if visitor is None:
            return EkibenError("overloaded", detail, retry_after_s=max(math.ceil(wait_s), 1.0))
        retry_after_s = self._appointments.make(now, visitor.fingerprint(), demand.work_s, wait_s)
        return EkibenError("overloaded", detail, retry_after_s=retry_after_s)
