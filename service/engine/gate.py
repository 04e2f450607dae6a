"""Who is let in when others are waiting or being served already, and what those who are not are told.

A request is refused at once if its model's queue is full, or if it or another would then be answered too late; it is
told when to come back, and passes the others when it does. What a path was last refused for is remembered for a moment,
so that those who come next are refused before anybody reads what they ask. Those who are not take part in the reckoning
from then on, though what they ask still has to be read. Not safe to share between threads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.admission import Admission, Forecast
from service.engine.appointments import Appointments, Visitor, by_address
from service.engine.batcher import Batcher
from service.engine.counters import Counters, Refusal
from service.engine.limits import Limits
from service.engine.request import Piece, Request
from service.errors import EkibenError

PROBE_S = 1.0  # after so long without a measurement, what should be late is let in, to measure again
USED = 0.6  # of the time that a request has: on its way here and back it loses some that nobody sees here
USED_BY_RETURNERS = 0.8  # so there is always room for those who come back as told
LINE = 0.025  # of that time, for a line of those who are still to be read that does not get shorter
LINE_OF_RETURNERS = 0.1
CLOSED = 0.02  # of that time nobody is let in once somebody was not: to look again costs more than it gains
PLACES = 0.8  # of a queue: for all others


@dataclass(slots=True)
class Demand:
    """What a request takes."""

    counters: Counters
    work_s: float
    run_s: float
    until: float  # then one is let in, to learn whether it is still so; a second later it is forgotten
    probed: bool = False
    closed_until: float = 0.0  # till then there is no place for who has no more than
    closed_for_s: float = 0.0  # to wait


class Gate:
    def __init__(self, slots: int, limits: Limits, admission: Admission) -> None:
        self._limits = limits
        self._admission = admission
        self._appointments = Appointments(slots)
        self.judged: dict[str, Demand] = {}  # paths: who asks there might be refused before anybody reads what it asks

    def stay_away_s(self, visitor: Visitor, now: float) -> float:
        """A quick look, on any thread: the seconds for which this visitor is to stay away, or 0: it should knock."""
        demand = self.judged.get(visitor.path)
        if demand is None or demand.closed_until <= now or visitor.deadline - now > demand.closed_for_s:
            return 0.0
        seconds = self._appointments.ahead_s(by_address(visitor.path, visitor.address), now)
        if seconds:
            demand.counters.refused["unread"] += 1
        return seconds

    def knock(self, visitor: Visitor, now: float, lag_s: float = 0.0, line_s: float = 0.0) -> EkibenError | None:
        """Why nobody needs to read what this visitor asks, or None: then `forget` is to follow.

        Who was not refused lately gets as far as having its body read, which may show that it was told to come now: it
        is to knock again then. That takes about as long as it waits (`lag_s`) before anybody looks at it. Nobody is let
        in who would join a line that stands, if that (`line_s`, 0: there is none) takes too much of its time.
        """
        demand = self.judged.get(visitor.path)
        if demand is None:
            visitor.crowded = visitor.crowded or _is_long(line_s, LINE, visitor, now)
            return None
        if visitor.due_s:
            return None
        if demand.until < now:
            if demand.probed:
                del self.judged[visitor.path]
                return None
            demand.probed, demand.until = True, now + PROBE_S
        else:
            returns = self._returns(visitor, now)
            _, excess_s = self._forecast(now, visitor.deadline, demand, returns=returns, lag_s=2 * lag_s)
            crowded = _is_long(line_s, LINE_OF_RETURNERS if returns else LINE, visitor, now)
            if crowded:
                excess_s = max(excess_s, line_s)
            if excess_s > 0:
                if not returns:
                    self._close(demand, visitor, now, excess_s)
                known = visitor.body is not None or visitor.fingerprints()[0] in self._appointments
                known = known or crowded or 2 * lag_s > USED * (visitor.deadline - now)
                reason: Refusal = "unread" if visitor.body is None else "overloaded"
                return self._refuse(reason, demand, visitor, now, excess_s) if returns or known else None
        visitor.due_s = demand.work_s
        if visitor.due_s:
            self._admission.queued(visitor.deadline, visitor.due_s)
        return None

    def forget(self, visitor: Visitor) -> None:
        """Nothing needs to be kept for it any more."""
        if visitor.due_s:
            self._admission.left(visitor.deadline, visitor.due_s)
            visitor.due_s = 0.0

    def judge(self, visitor: Visitor, batcher: Batcher, num_rows: int, num_steps: int, now: float) -> None:
        """From now on it is known what those ask for who come where this visitor came, which was in a long line."""
        visitor.crowded = False
        row_s, run_s = batcher.cost(num_steps)
        self.judged.setdefault(visitor.path, Demand(batcher.counters, row_s * num_rows, run_s, now + PROBE_S))

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
                self.judged[visitor.path] = demand
                if not returns:
                    self._close(demand, visitor, now, excess_s)
            return self._refuse("overloaded", demand, visitor, now, excess_s)
        request.foretold_s = foretold_s
        return None

    def _returns(self, visitor: Visitor, now: float) -> bool:
        if not visitor.returns and self._appointments:
            visitor.returns = self._appointments.keep(now, visitor.fingerprints())
        return visitor.returns

    def _places(self, returns: bool) -> int:
        """Items that may wait."""
        places = self._limits.max_queue_items
        return places if returns or not self._appointments else int(places * PLACES)

    def _forecast(self, now: float, deadline: float, demand: Demand, *, returns: bool, lag_s: float = 0.0) -> Forecast:
        kept_s = (1 - (USED_BY_RETURNERS if returns else USED)) * (deadline - now) + lag_s
        return self._admission.forecast(now, deadline, demand.work_s, demand.run_s, kept_s)

    def _close(self, demand: Demand, visitor: Visitor, now: float, excess_s: float) -> None:
        demand.closed_for_s = visitor.deadline - now
        soonest_s = excess_s / self._admission.stretch  # no queue gets shorter any faster
        demand.closed_until = now + max(soonest_s, CLOSED * demand.closed_for_s)

    def _refuse(
        self, reason: Refusal, demand: Demand, visitor: Visitor | None, now: float, wait_s: float
    ) -> EkibenError:
        counters = demand.counters
        counters.refused[reason] += 1
        what = "the queue is full" if reason == "queue-full" else "it would be answered too late"
        detail = f"{what}; {counters.queued_items} items are waiting"
        if visitor is None:
            return EkibenError("overloaded", detail, retry_after_s=max(math.ceil(wait_s), 1.0))
        retry_after_s = self._appointments.make(now, visitor.fingerprints(), demand.work_s, wait_s)
        return EkibenError("overloaded", detail, retry_after_s=retry_after_s)


def _is_long(line_s: float, share: float, visitor: Visitor, now: float) -> bool:
    """Does a line take more than this share of the time that the visitor has?"""
    return line_s > max(share * (visitor.deadline - now), 0.0)
