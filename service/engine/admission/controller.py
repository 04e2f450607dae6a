"""Admission control: a request is admitted only if it, and every request admitted before it, will be answered in time.

A refusal names the time to come back, and reserves computing for that time. A client that returns on time may use more
of its deadline and of the queue than others, so it finds a place; a client that returns too early while requests are
being refused is refused again before its body is read. `try_admit` may be called from any thread.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from threading import RLock

from service.engine.admission.retry_schedule import RetrySchedule
from service.engine.batching.backlog import Backlog, Prediction
from service.engine.batching.cost_model import CostEstimate
from service.engine.context import UNRESERVED, Permit, RequestContext
from service.engine.limits import Limits
from service.engine.metrics import Counters, Refusal
from service.errors import EkibenError

DEADLINE_BUDGET = 0.6  # share of its time that a request may spend in the engine; the rest is for the way here and back
RETRY_BUDGET = 0.8  # the same for a client that returns on time
QUEUE_SHARE = 0.8  # of a queue, for all other requests while clients are expected to return
SHED_INTERVAL = 0.02  # a refusal turns early clients away for at least this share of its timeout
MAX_AGE_S = 1.0  # of a measurement: after that a request is admitted to measure again


class AdmissionController:
    def __init__(
        self, slots: int, limits: Limits, backlog: Backlog, lock: RLock, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`slots` is the number of batches that compute at the same time; `lock` guards the backlog."""
        self._limits = limits
        self._backlog = backlog
        self._lock = lock
        self._clock = clock
        self._retries = RetrySchedule(slots)
        self.expects_retries = False  # if so, `try_admit` should see requests that are not read
        self._shedding_until = 0.0
        self._shedding_timeout_s = 0.0  # requests with a longer timeout are not turned away

    def try_admit(self, context: RequestContext, cost: CostEstimate | None = None) -> Permit:
        """Admit a request, or raise EkibenError overloaded with the time to come back.

        Without a cost the request has not been read: only a client that returns too early is refused then, and the
        permit reserves what a client that returns on time asked for before. With its cost the request joins a queue
        next; the queue accounts for its work, so the permit reserves nothing.
        """
        with self._lock:
            now = self._clock()
            return self._admit_unread(context, now) if cost is None else self._admit(context, cost, now)

    def _admit_unread(self, context: RequestContext, now: float) -> Permit:
        self._retries.drop_expired(now)
        self.expects_retries = bool(self._retries)
        client = context.client, context.route
        if (upcoming := self._retries.upcoming(client, now)) is not None:
            earlier, retry_after_s = upcoming
            is_shedding = now < self._shedding_until and context.timeout_s <= self._shedding_timeout_s
            if is_shedding or self._predict(context, earlier.cost, now)[1] > 0:
                raise _refusal("unread", earlier.cost.counters, retry_after_s)
            return UNRESERVED
        if (reservation := self._retries.redeem(client, now)) is None:
            return UNRESERVED
        context.is_retry = True
        self._backlog.add(context.deadline, reservation.cost.work_s)
        return Permit(reservation.cost.work_s, release=partial(self._release, context.deadline))

    def _admit(self, context: RequestContext, cost: CostEstimate, now: float) -> Permit:
        if self._retries and not context.is_retry:
            context.is_retry = self._retries.redeem((context.client, context.route), now) is not None
        share = QUEUE_SHARE if self._retries and not context.is_retry else 1.0
        max_rows = int(self._limits.max_queue_items * share)
        if cost.queued_rows and cost.queued_rows + cost.num_rows > max_rows:
            raise self._overloaded("queue-full", context, cost, now)
        predicted_s, late_s = self._predict(context, cost, now)
        if late_s > 0 and now < cost.measured_at + MAX_AGE_S:
            raise self._overloaded("overloaded", context, cost, now, late_s)
        return Permit(predicted_s=predicted_s)

    def _predict(self, context: RequestContext, cost: CostEstimate, now: float) -> Prediction:
        """See Backlog.predict; if an answer would be late, early clients are turned away for a while."""
        remaining_s = context.deadline - now
        reserved_s = (1 - (RETRY_BUDGET if context.is_retry else DEADLINE_BUDGET)) * remaining_s
        prediction = self._backlog.predict(now, context.deadline, cost.work_s, cost.batch_s, reserved_s)
        if prediction[1] > 0 and not context.is_retry:
            # Working off `late_s` seconds of waiting takes at least `late_s` seconds.
            interval_s = max(prediction[1] / self._backlog.error_ratio, SHED_INTERVAL * context.timeout_s)
            self._shedding_until, self._shedding_timeout_s = now + interval_s, context.timeout_s
        return prediction

    def _overloaded(
        self, reason: Refusal, context: RequestContext, cost: CostEstimate, now: float, wait_s: float = 0.0
    ) -> EkibenError:
        retry_after_s = max(math.ceil(wait_s), 1.0)
        if context.client:
            self.expects_retries = True
            retry_after_s = self._retries.reserve(now, (context.client, context.route), cost, wait_s=wait_s)
        return _refusal(reason, cost.counters, retry_after_s)

    def _release(self, deadline: float, work_s: float) -> None:
        with self._lock:
            self._backlog.remove(deadline, work_s)


def _refusal(reason: Refusal, counters: Counters, retry_after_s: float) -> EkibenError:
    counters.refused[reason] += 1
    cause = "the queue is full" if reason == "queue-full" else "the deadline would be missed"
    return EkibenError("overloaded", f"{cause}; {counters.queued_items} items are waiting", retry_after_s=retry_after_s)
