"""The samples of a worker, and the /metrics route."""

from types import SimpleNamespace
from typing import Any, get_args

import pytest
from starlette.testclient import TestClient

from service.engine.metrics import Counters, Refusal
from service.http.route import InferenceRoute
from service.http.router import ROUTES
from service.http.routes.metrics import collect_samples
from service.http.routes.oip import MODEL_ROUTES
from service.http.telemetry.exposition import FAMILIES
from service.http.telemetry.request_metrics import RequestMetrics
from tests.service.http.telemetry.prometheus import scrape

FINISHED = ("stop", "length", "abort", "timeout", "not-finite", "internal", "overloaded")  # of a text


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
    rows = [
        {"name": "m", "version": "v", "state": "READY", "provider": "CPUExecutionProvider"},
        {"name": "n", "version": "w", "state": "FAILED"},
    ]
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
    assert seen["ekiben_provider_models,CPUExecutionProvider"] == 1
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


def worst_case(*, is_language_model: bool) -> Any:
    """A state in which everything has happened to every route of a model that can."""
    state = service_state()
    (counters,) = state.runner.counters()
    counters.refused.update(get_args(Refusal))
    counters.generation.max_kv_cache_bytes = is_language_model << 20
    counters.generation.finished.update(FINISHED)
    metrics = RequestMetrics(has_triton_names=True)
    generation_routes = {"/v1/completions", "/v1/chat/completions", "/generate", "/generate/stream"}
    assert generation_routes <= set(ROUTES)
    routes = {
        *(generation_routes if is_language_model else {"/predict", "/classify"}),
        *(route.name for route in MODEL_ROUTES.values() if isinstance(route, InferenceRoute)),
    }
    for route in routes:
        for status in (200, 400 if route.startswith("/v1/") else 422, 499, 500, 503, 504):
            metrics.record(route, status, 0.1, "m", "v")
    state.request_metrics = metrics
    return state


@pytest.mark.parametrize("is_language_model", [False, True])
def test_a_model_has_at_most_200_series(is_language_model: bool) -> None:
    samples = collect_samples(worst_case(is_language_model=is_language_model))
    assert 100 < sum(("model", "m") in labels for _, _, labels in samples) <= 200


def test_series_of_a_version_that_is_unloaded_end_and_those_of_a_draining_one_do_not() -> None:
    state = service_state()
    state.repository = SimpleNamespace(
        ready=True,
        list_models=lambda: [
            {"name": "m", "version": "new", "state": "READY", "provider": "CPUExecutionProvider", "draining": ["v"]}
        ],
    )
    assert "ekiben_engine_requests_total,m,v" in scrape(collect_samples(state))
    state.repository = SimpleNamespace(
        ready=True,
        list_models=lambda: [
            {"name": "m", "version": "new", "state": "READY", "provider": "CPUExecutionProvider", "draining": []}
        ],
    )
    assert "ekiben_engine_requests_total,m,v" not in scrape(collect_samples(state))


def test_requests_of_a_model_are_shown_by_its_name_over_all_versions() -> None:
    state = service_state()
    for version, status in (("v", 200), ("w", 200), ("w", 422)):
        state.request_metrics.record("/classify", status, 0.5, "m", version)
    seen = scrape(collect_samples(state))
    assert seen["ekiben_http_requests_total,m,/classify,200"] == 2
    assert seen["ekiben_http_requests_total,m,/classify,422"] == 1
    assert seen["ekiben_http_requests_total,/classify,200"] == 1, "found no model"
    assert seen["ekiben_http_model_seconds_count,m"] == 3
    assert seen["ekiben_http_request_seconds_count,/classify"] == 4


@pytest.mark.parametrize(
    ("accept", "is_preferred"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3", True),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.6", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        ("application/openmetrics-text;q=", False),
        (";;,,=;q=1", False),
    ],
)
def test_openmetrics_is_written_if_it_is_preferred(accept: str, is_preferred: bool, client: TestClient) -> None:
    response = client.get("/metrics", headers={"accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text") == is_preferred
    assert response.text.endswith("# EOF\n") == is_preferred
    assert response.headers["vary"] == "accept"
