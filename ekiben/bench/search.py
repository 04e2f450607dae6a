"""The highest rate at which a service keeps a latency bound."""

from collections.abc import Callable, Iterator

from ekiben.bench.runs import Run

# The search ends when the rate that holds and the one that does not are this close.
RESOLUTION = 1.05
MAX_RATE = 1e5
# A rate is too high if as many runs in turn fail: one can fail by chance.
TRIES = 2


def find_highest_rate(measure_at: Callable[[float], Run], first_rate: float) -> Iterator[Run]:
    """Yield each run: rates double from the first until one does not hold, then halve the ratio that is left.

    The valid run with the highest completed rate is the answer; if there is none, no rate down to a hundredth of the
    first one held.
    """
    low, high, rate = 0.0, MAX_RATE, first_rate
    while True:
        held = False
        for _ in range(TRIES):
            run = measure_at(rate)
            yield run
            held = run.valid
            if held:
                break
        if held:
            low = rate
        else:
            high = rate
        if (low and high / low <= RESOLUTION) or (not low and high <= first_rate / 100):
            return
        if not low:
            rate = high / 4
        elif high == MAX_RATE:
            rate = min(low * 2, MAX_RATE)
        else:
            rate = (low * high) ** 0.5


def best_of(runs: list[Run]) -> Run | None:
    return max((run for run in runs if run.valid), key=lambda run: run.completed_rate, default=None)
