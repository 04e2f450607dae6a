"""Who is let in when others are waiting or being served already, and what those who are not are told.

A request is refused at once if its model's queue is full, or if it or another would then be answered too late; it is
told when to come back, and let in when coming back then. Not safe to share between threads.
"""

from collections.abc import Sequence

from service.engine.admission import Admission
from service.engine.appointments import SHARE, Appointments
from service.engine.counters import Refusal
from service.engine.latency import LATE
from service.engine.limits import Limits
from service.engine.request import Piece, Request
from service.errors import EkibenError

PROBE_S = 1.0  # after so long without a measurement, what should be late is let in, to measure again


class Gate:
    def __init__(self, slots: int, limits: Limits, admission: Admission) -> None:
        self._limits = limits
        self._admission = admission
        self._appointments = Appointments(slots)

    def refusal(self, request: Request, pieces: Sequence[Piece], now: float) -> EkibenError | None:
        """Why the request must not be queued, or None if it may."""
        batcher = request.batcher
        work_s, longest = 0.0, 0
        for piece in pieces:
            piece.price_s = batcher.price(piece)
            work_s += piece.price_s
            longest = max(longest, piece.longest)
        promised_s = 0.0
        if self._appointments and not self._appointments.keep(now, request.fingerprint()):
            promised_s = self._appointments.promised_s(now)
        if batcher.num_rows and batcher.num_rows + request.num_rows > self._room(request, work_s, promised_s):
            return self._refuse(request, "queue-full", now, work_s, 0.0)
        run_s = batcher.latency.foretell(batcher.room(longest), longest, LATE) or 0.0
        foretold_s, excess_s = self._admission.forecast(now, request.deadline, work_s, run_s, promised_s)
        if excess_s > 0 and now < batcher.observed_at + PROBE_S:
            return self._refuse(request, "overloaded", now, work_s, excess_s)
        request.foretold_s = foretold_s
        return None

    def _room(self, request: Request, work_s: float, promised_s: float) -> int:
        """Items that may wait, less those for which a place is kept."""
        room = self._limits.max_queue_items
        if not promised_s:
            return room
        promised_items = promised_s / work_s * request.num_rows if work_s else room
        return room - int(min(promised_items, room * SHARE))

    def _refuse(self, request: Request, reason: Refusal, now: float, work_s: float, wait_s: float) -> EkibenError:
        batcher = request.batcher
        batcher.counters.refused[reason] += 1
        what = "its queue is full" if reason == "queue-full" else "it would be answered too late"
        detail = f"{batcher.layout.where}: {what}; {batcher.num_rows} items are waiting"
        retry_after_s = self._appointments.make(now, request.fingerprint(), work_s, wait_s)
        return EkibenError("overloaded", detail, retry_after_s=retry_after_s)
