"""Runs for tests."""

from ekiben.bench.runs import Run, Scenario

LATENCY_MS = {"50.00": 1.0, "90.00": 2.0, "95.00": 2.5, "99.00": 3.0, "99.90": 4.0}


def make_run(rate: float, *, valid: bool, scenario: Scenario = Scenario.SERVER) -> Run:
    return Run(
        scenario=scenario,
        valid=valid,
        offered_rate=rate,
        completed_rate=rate,
        num_queries=1000,
        mean_ms=1.0,
        latency_ms=LATENCY_MS,
        client_share=0.1,
    )
