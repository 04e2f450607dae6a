"""Spans by the standard variables; tests/service/test_observability.py sends them from real services."""

import time
from typing import Any

import pytest

from service.engine.context import Timing
from service.http.telemetry.spans import SpanObserver, open_spans
from tests.service.collector import Collector, attributes, collecting
from tests.service.http.telemetry.observed import observation, outcome

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    "changes",
    [
        {ENDPOINT: ""},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_SDK_DISABLED": " TRUE "},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_spans_are_off_unless_a_collector_is_named(changes: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert open_spans({ENDPOINT: "http://127.0.0.1:1", **changes}) is None
    assert not caplog.records


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_another_protocol_is_refused_in_one_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert open_spans({ENDPOINT: "http://127.0.0.1:1", name: "grpc"}) is None
    (record,) = caplog.records
    assert record.message == "no spans are exported: the service speaks http/protobuf to a collector, not grpc"


def exported(monkeypatch: pytest.MonkeyPatch, *ended: Any, **variables: str) -> Collector:
    """Observe requests with these variables set; return the collector when the observer has been closed."""
    with collecting() as collector:
        for name, value in {**variables, ENDPOINT: collector.endpoint}.items():
            monkeypatch.setenv(name, value)
        observer = open_spans({ENDPOINT: collector.endpoint})
        assert isinstance(observer, SpanObserver)
        for observed, how in ended:
            observer.begin(observed)
            observer.end(observed, how)
        observer.close()
        return collector


def test_several_computations_are_one_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = observation(b"{}")
    at = observed.body_at
    assert observed.request.context is not None
    observed.request.context.timings = [Timing(at + 1, at + 2, at + 3), Timing(at + 1.5, at + 2.5, at + 5)]
    spans = {span.name: span for span in exported(monkeypatch, (observed, outcome())).spans}
    seconds = {name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for name, span in spans.items()}
    assert seconds["queue"] == pytest.approx(1, abs=0.01)
    assert seconds["compute"] == pytest.approx(3, abs=0.01)


def test_only_failures_of_the_service_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [(observation(route=f"/{status}"), outcome(status, None)) for status in (200, 404, 499, 500, 503)]
    spans = {span.name: span for span in exported(monkeypatch, *ended).spans}
    assert [name for name, span in spans.items() if span.status.code == 2] == ["POST /500", "POST /503"]
    assert attributes(spans["POST /503"])["error.type"] == "503"


def test_a_sampler_and_a_name_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [(observation(), outcome()) for _ in range(20)]
    collector = exported(monkeypatch, *ended, OTEL_SERVICE_NAME="shop")
    assert len(collector.spans) == 20
    assert collector.resources[0]["service.name"] == "shop"
    none = exported(monkeypatch, *ended, OTEL_TRACES_SAMPLER="always_off")
    assert none.spans == []
    assert all(observed.request.trace.header.endswith("-00") for observed, _ in ended)


def test_a_collector_that_is_away_costs_requests_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64")
    observer = open_spans({ENDPOINT: "http://127.0.0.1:1"})
    assert observer is not None
    started_at = time.monotonic()
    for _ in range(1000):
        observed = observation(b"{}")
        observer.begin(observed)
        observer.end(observed, outcome())
    assert time.monotonic() - started_at < 10
    observer.close()
    assert time.monotonic() - started_at < 20
