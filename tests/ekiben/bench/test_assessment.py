"""An assessment runs what it is told, and holds when a rate holds and nothing failed."""

from dataclasses import replace

from benchmarks.slo.known_delays import delayed_server
from ekiben.bench.assessment import Assessment, assess
from ekiben.bench.runs import CLIENT_LIMIT, Run, Scenario, Target
from ekiben.bench.samples import load_samples
from tests.ekiben.bench.run_results import make_run


def test_scenarios_are_run_in_turn() -> None:
    seen: list[Run] = []
    with delayed_server(delay_ms=2) as url:
        target = Target(url=url, samples=load_samples(url, "delayed", headers={}))
        scenarios = [Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM, Scenario.SERVER]
        found = assess(target, "delayed", scenarios=scenarios, p99_ms=1e4, seconds=0.3, rate=300, on_run=seen.append)
    assert [run.scenario for run in seen] == scenarios
    assert (list(found.runs), list(found.searched)) == (seen[:2], seen[2:])
    assert found.highest == seen[2]
    assert found.holds
    assert all(run.latency_ms["50.00"] >= 2 for run in seen)


def test_failed_queries_and_a_busy_client_are_noticed() -> None:
    run = make_run(100, valid=True)
    found = Assessment(url="", model="m", p99_ms=20, runs=[run], searched=[run], highest=run)
    assert found.holds
    assert not found.limited_by_client
    assert not replace(found, runs=[replace(run, failures={"status 503": 1})]).holds
    assert not replace(found, highest=None).holds
    assert replace(found, searched=[replace(run, client_share=(1 + CLIENT_LIMIT) / 2)]).limited_by_client
