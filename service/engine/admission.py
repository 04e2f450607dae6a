"""Who is let in: an item is admitted only if it, and everyone admitted before it, will be answered in time.

The work that waits is kept in seconds of computing, by deadline; since the earliest deadline is served first, an item
waits for the work that is due before it and delays the work that is due after it. How far such sums were off lately
(other load on the machine, a busy event loop) stretches them. Not safe to share between threads.
"""

from service.engine.latency import Window

TICKS_PER_S = 64  # deadlines this close count as one
STRETCHES, SLOWEST = 128, 0.99  # how many answers are remembered, and which of them counts
WORTH_LEARNING_S = 0.002  # shorter waits say more about the clock than about the queue


Forecast = tuple[float, float]


class Admission:
    def __init__(self, slots: int) -> None:
        """`slots` is how many batches are computed at the same time."""
        self.total_s = 0.0
        self._slots = slots
        self._due: dict[int, float] = {}  # tick -> seconds of work due in it
        self._ends: dict[object, float] = {}  # what is running -> when it should end
        self._stretches = Window(STRETCHES)
        self._stretch = 1.0

    @property
    def stretch(self) -> float:
        """How many times longer than foretold the slow answers took lately."""
        return self._stretch

    def forecast(self, now: float, deadline: float, work_s: float, run_s: float, kept_s: float = 0.0) -> Forecast:
        """Seconds to the answer before stretching, and by how much it or another would then be late (0: none would).

        For an item of `work_s` seconds of computing whose own batch takes `run_s`. `kept_s` of its time are
        to be left to others.
        """
        slack_s = deadline - now - kept_s
        running_s = self._running_s(now)
        plain_s = running_s + (self.total_s + work_s) / self._slots
        if plain_s * self._stretch + run_s <= slack_s:
            return plain_s + run_s, 0.0  # all there is fits before this deadline, so before every later one
        mine = int(deadline * TICKS_PER_S)
        waited, worst = work_s, 0.0
        for tick in sorted({*self._due, mine}):
            waited += self._due.get(tick, 0.0)
            if tick >= mine:
                due = deadline if tick == mine else (tick + 1) / TICKS_PER_S
                own_s = running_s + waited / self._slots
                plain_s = own_s if tick == mine else plain_s
                worst = max(worst, own_s * self._stretch + run_s + kept_s - (due - now))
        return plain_s + run_s, worst

    def _running_s(self, now: float) -> float:
        total_s = 0.0
        for end in self._ends.values():
            if end > now:
                total_s += end - now
        return total_s / self._slots

    def queued(self, deadline: float, work_s: float) -> None:
        tick = int(deadline * TICKS_PER_S)
        self._due[tick] = self._due.get(tick, 0.0) + work_s
        self.total_s += work_s

    def left(self, deadline: float, work_s: float) -> None:
        tick = int(deadline * TICKS_PER_S)
        rest = self._due.get(tick, 0.0) - work_s
        if rest > 1e-9:
            self._due[tick] = rest
        else:
            self._due.pop(tick, None)
        self.total_s = max(self.total_s - work_s, 0.0) if self._due else 0.0

    def begins(self, job: object, end: float) -> None:
        self._ends[job] = end

    def ends(self, job: object) -> None:
        self._ends.pop(job, None)

    def learn(self, foretold_s: float, took_s: float) -> None:
        """An answer that was foretold (before stretching) to take `foretold_s` took `took_s`."""
        if foretold_s >= WORTH_LEARNING_S:
            self._stretches.add(took_s / foretold_s)
            self._stretch = min(max(self._stretches.quantile(SLOWEST), 0.5), 16.0)
