"""What is found about a model behind a URL: the runs of the scenarios, and the highest rate that keeps the bound."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ekiben.bench.runs import CLIENT_LIMIT, Run, Scenario, Target, measure
from ekiben.bench.search import best_of, find_highest_rate

# The first run opens connections and fills caches, and gives the rate at which the search begins.
FIRST_RUN_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """`runs` are those of other scenarios than `server`, whose runs are in `searched`, with the best in `highest`."""

    url: str
    model: str
    p99_ms: float
    runs: Sequence[Run]
    searched: Sequence[Run] = ()
    highest: Run | None = None
    accuracy: float | None = None
    machine: dict[str, Any] = field(default_factory=lambda: {"cores": os.cpu_count(), "processor": platform.machine()})

    @property
    def holds(self) -> bool:
        """Whether a rate keeps the bound, if one was searched, and every query of the other runs was answered."""
        return (not self.searched or self.highest is not None) and not any(run.failures for run in self.runs)

    @property
    def limited_by_client(self) -> bool:
        return any(run.client_share > CLIENT_LIMIT for run in self.searched)


def assess(
    target: Target,
    model: str,
    *,
    scenarios: Sequence[Scenario],
    p99_ms: float,
    seconds: float,
    rate: float | None = None,
    on_run: Callable[[Run], None],
) -> Assessment:
    """Run the scenarios in turn. `rate`: the one to measure in the server scenario, instead of searching."""
    first = measure(target, Scenario.SINGLE_STREAM, seconds=min(seconds, FIRST_RUN_S))
    first_rate = 1e3 / first.mean_ms
    runs: list[Run] = []
    searched: list[Run] = []

    def at_rate(rate: float) -> Run:
        return measure(target, Scenario.SERVER, seconds=seconds, rate=rate, p99_ms=p99_ms)

    for scenario in scenarios:
        if scenario is Scenario.SERVER:
            for run in [at_rate(rate)] if rate is not None else find_highest_rate(at_rate, first_rate):
                searched.append(run)
                on_run(run)
        else:
            runs.append(measure(target, scenario, seconds=seconds, rate=first_rate))
            on_run(runs[-1])
    return Assessment(
        url=target.url, model=model, p99_ms=p99_ms, runs=runs, searched=searched, highest=best_of(searched)
    )
