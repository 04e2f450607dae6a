"""The samples of a worker, and the /metrics route."""

from types import SimpleNamespace
from typing import Any

from starlette.testclient import TestClient

from service.engine.metrics import Counters
from service.http.routes.metrics import collect_samples
from service.http.telemetry.exposition import FAMILIES
from service.http.telemetry.request_metrics import RequestMetrics
from tests.service.http.telemetry.prometheus import scrape


def service_state() -> Any:
    counters = Counters(model="m", version="v", requests=3, items=5, executed_items=4, batches=3, inline_batches=1)
    counters.refused["overloaded"] = 2
    counters.compute_s.add(0.00005)
    counters.queued_items = 7
    counters.generation.max_kv_cache_bytes = 1 << 20
    counters.generation.generated_tokens = 9
    counters.generation.finished["stop"] = 2
    metrics = RequestMetrics()
    metrics.record("/classify", 200, 0.5)
    metrics.in_flight = 1
    rows = [{"name": "m", "version": "v", "state": "READY"}, {"name": "n", "version": "w", "state": "FAILED"}]
    return SimpleNamespace(
        runner=SimpleNamespace(counters=lambda: [counters]),
        repository=SimpleNamespace(ready=True, list_models=lambda: rows),
        request_metrics=metrics,
        draining=False,
        multiprocess_metrics=None,
    )


def test_samples_cover_requests_models_and_engine() -> None:
    seen = scrape(collect_samples(service_state()))
    assert seen["ekiben_http_requests_total,/classify,200"] == 1
    assert seen["ekiben_http_in_flight"] == 1
    assert seen["ekiben_ready_workers"] == 1
    assert seen["ekiben_model_ready,m,v"] == 1
    assert "ekiben_model_ready,n,w" not in seen
    assert seen["ekiben_engine_items_total,m,executed,v"] == 4
    assert seen["ekiben_engine_refused_total,m,overloaded,v"] == 2
    assert seen["ekiben_engine_batches_total,inline,m,v"] == 1
    assert seen["ekiben_engine_batches_total,thread,m,v"] == 2
    assert seen["ekiben_engine_queue_items,m,v"] == 7
    assert seen["ekiben_generation_tokens_total,m,v"] == 9
    assert seen["ekiben_request_success_total,stop,m,v"] == 2
    assert seen["ekiben_engine_compute_seconds_count,m,v"] == 1
    assert seen["ekiben_engine_compute_seconds_bucket,3.2e-05,m,v"] == 0
    assert seen["ekiben_engine_compute_seconds_bucket,6.4e-05,m,v"] == 1
    assert seen["ekiben_engine_compute_seconds_bucket,+Inf,m,v"] == 1


def test_every_sample_belongs_to_a_declared_family() -> None:
    assert {family for family, *_ in collect_samples(service_state())} <= set(FAMILIES)


def test_a_draining_worker_is_not_ready() -> None:
    state = service_state()
    state.draining = True
    assert scrape(collect_samples(state))["ekiben_ready_workers"] == 0


def test_the_metrics_route_of_the_application(client: TestClient) -> None:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert 'ekiben_model_ready{model="tiny-images"' in response.text
