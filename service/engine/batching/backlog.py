"""The computing that waits for a device, and when a new request would be answered.

The backlog holds seconds of computing by deadline. The earliest deadline runs first, so a request waits for the work
that is due before it and delays the work that is due after it. The ratio of actual to predicted waits of recent answers
corrects every prediction for other load on the machine. Not safe to share between threads.
"""

from service.engine.batching.cost_model import Window

TICKS_PER_S = 64  # deadlines within one tick count as equal
NUM_ERROR_RATIOS = 128  # recent answers that correct the predictions
ERROR_QUANTILE = 0.99
MIN_PREDICTED_S = 0.002  # shorter waits measure the clock, not the queue
MIN_ERROR_RATIO, MAX_ERROR_RATIO = 0.5, 16.0

Prediction = tuple[float, float]


class Backlog:
    def __init__(self, slots: int) -> None:
        """`slots` is the number of batches that compute at the same time."""
        self.total_s = 0.0
        self._slots = slots
        self._work_by_tick: dict[int, float] = {}  # tick of a deadline -> seconds of work
        self._running: dict[object, float] = {}  # job -> its predicted end
        self._error_ratios = Window(NUM_ERROR_RATIOS)
        self._error_ratio = 1.0

    @property
    def error_ratio(self) -> float:
        """Actual divided by predicted time of recent slow answers (a high quantile)."""
        return self._error_ratio

    def predict(
        self, now: float, deadline: float, work_s: float, batch_s: float, reserved_s: float = 0.0
    ) -> Prediction:
        """Seconds to the answer, uncorrected, and by how many seconds this or another answer would be late (0: none).

        The request computes `work_s`, its last batch `batch_s`; `reserved_s` before the deadline must stay unused.
        """
        slack_s = deadline - now - reserved_s
        running_s = self._running_s(now)
        plain_s = running_s + (self.total_s + work_s) / self._slots
        if plain_s * self._error_ratio + batch_s <= slack_s:
            return plain_s + batch_s, 0.0  # the whole backlog ends before this deadline
        own_tick = int(deadline * TICKS_PER_S)
        before_s, max_late_s = work_s, 0.0
        for tick in sorted({*self._work_by_tick, own_tick}):
            before_s += self._work_by_tick.get(tick, 0.0)
            if tick >= own_tick:
                due = deadline if tick == own_tick else (tick + 1) / TICKS_PER_S
                wait_s = running_s + before_s / self._slots
                plain_s = wait_s if tick == own_tick else plain_s
                max_late_s = max(max_late_s, wait_s * self._error_ratio + batch_s + reserved_s - (due - now))
        return plain_s + batch_s, max_late_s

    def _running_s(self, now: float) -> float:
        total_s = 0.0
        for end in self._running.values():
            if end > now:
                total_s += end - now
        return total_s / self._slots

    def add(self, deadline: float, work_s: float) -> None:
        tick = int(deadline * TICKS_PER_S)
        self._work_by_tick[tick] = self._work_by_tick.get(tick, 0.0) + work_s
        self.total_s += work_s

    def remove(self, deadline: float, work_s: float) -> None:
        tick = int(deadline * TICKS_PER_S)
        remaining_s = self._work_by_tick.get(tick, 0.0) - work_s
        if remaining_s > 1e-9:
            self._work_by_tick[tick] = remaining_s
        else:
            self._work_by_tick.pop(tick, None)
        self.total_s = max(self.total_s - work_s, 0.0) if self._work_by_tick else 0.0

    def started(self, job: object, end: float) -> None:
        """A job left the queue and is predicted to end at `end`."""
        self._running[job] = end

    def finished(self, job: object) -> None:
        self._running.pop(job, None)

    def calibrate(self, predicted_s: float, took_s: float) -> None:
        """An answer that was predicted, uncorrected, to take `predicted_s` took `took_s`."""
        if predicted_s >= MIN_PREDICTED_S:
            self._error_ratios.add(took_s / predicted_s)
            ratio = self._error_ratios.quantile(ERROR_QUANTILE)
            self._error_ratio = min(max(ratio, MIN_ERROR_RATIO), MAX_ERROR_RATIO)
