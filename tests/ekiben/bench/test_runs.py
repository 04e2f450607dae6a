"""A run counts every query, and its accuracy is that of the answers."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.slo.known_delays import delayed_server
from ekiben.bench.runs import MIN_QUERIES, MULTI_STREAM_SAMPLES, Scenario, Target, measure, measure_accuracy
from ekiben.bench.samples import load_samples


def target(url: str, **options: int) -> Target:
    return Target(url=url, samples=load_samples(url, "delayed", headers={}), **options)


def test_a_rate_is_offered_until_a_percentile_can_be_judged() -> None:
    with delayed_server(delay_ms=1) as url:
        run = measure(target(url), Scenario.SERVER, seconds=0.1, rate=500, p99_ms=1e4)
    assert run.valid, run.reason
    assert run.num_queries >= MIN_QUERIES * 0.8
    assert (run.failures, run.reason) == ({}, "")


def test_all_items_are_sent_at_once() -> None:
    with delayed_server(delay_ms=20) as url:
        run = measure(target(url, connections=4), Scenario.OFFLINE, seconds=1, rate=100)
    # Four connections carry one request in 20 ms each.
    assert run.completed_rate <= 200
    assert not run.failures


def test_eight_items_are_sent_at_a_time() -> None:
    with delayed_server(delay_ms=20) as url:
        run = measure(target(url, connections=4), Scenario.MULTI_STREAM, seconds=0.3)
    # Half of them wait for a connection.
    assert run.latency_ms["50.00"] >= 40
    assert run.completed_rate == pytest.approx(MULTI_STREAM_SAMPLES / run.mean_ms * 1e3)


def test_accuracy_is_the_share_of_right_labels() -> None:
    with delayed_server(fail_every=1000) as url:
        samples = target(url).samples
        labels = np.ones(len(samples.requests), np.int64)
        labels[:16] = 0
        assert measure_accuracy(Target(url=url, samples=replace(samples, targets=labels))) == 0.75
    with delayed_server(fail_every=10) as url, pytest.raises(RuntimeError, match="6 x status 503"):
        measure_accuracy(Target(url=url, samples=replace(samples, targets=labels)))
