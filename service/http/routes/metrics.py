"""GET /metrics: the samples of all workers, in the text format of Prometheus or in that of OpenMetrics."""

import time

from prometheus_client.samples import Exemplar

from service.engine.metrics import Counters, GenerationCounters, Histogram
from service.http.route import ReadRoute, ServiceState
from service.http.telemetry.exposition import (
    OPENMETRICS_TYPE,
    PROMETHEUS_TYPE,
    Key,
    Labels,
    Samples,
    bucket,
    histogram_samples,
    render_openmetrics,
    render_text,
)
from service.http.telemetry.process import build_samples, process_samples
from service.http.telemetry.request_metrics import RequestMetrics, ResponseMetrics
from service.http.telemetry.triton import triton_samples
from service.http.wire.messages import HttpRequest, Response

STARTED_AT = time.time() - time.monotonic()  # Unix time of the origin of `time.monotonic`


def collect_samples(state: ServiceState) -> Samples:
    """Return the samples of this process."""
    metrics = state.request_metrics
    samples: Samples = {**build_samples(metrics.revision), **process_samples(), **_http_samples(metrics)}
    for observer in metrics.observers:
        samples |= observer.samples()
    samples["ekiben_http_in_flight", "", ()] = metrics.in_flight
    samples["ekiben_ready_workers", "", ()] = float(not state.draining and state.repository.ready)
    rows = state.repository.list_models()
    for row in rows:
        if row["state"] == "READY":
            samples["ekiben_model_ready", "", (("model", row["name"]), ("version", row["version"]))] = 1
            key = "ekiben_provider_models", "", (("provider", row["provider"]),)
            samples[key] = samples.get(key, 0) + 1
    # The series of a version end when it is unloaded: their number must not grow with every new version.
    held = {(row["name"], version) for row in rows for version in (row["version"], *row.get("draining", ()))}
    for counters in state.runner.counters():
        version = counters.model, counters.version
        if version in held:
            samples |= _engine_samples(counters)
            if metrics.has_triton_names:
                samples |= triton_samples(counters, metrics.models.get(version) or ResponseMetrics())
    return samples


def _http_samples(metrics: RequestMetrics) -> Samples:
    samples: Samples = {}
    by_route: dict[str, list[Histogram]] = {}
    by_model: dict[str, list[Histogram]] = {}
    for (model, _), responses in ((("", ""), metrics), *list(metrics.models.items())):
        for (route, status), count in list(responses.responses.items()):
            of_model = (("model", model),) if model else ()
            key = "ekiben_http_requests", "_total", (*of_model, ("route", route), ("status", str(status)))
            samples[key] = samples.get(key, 0) + count
        for route, histogram in list(responses.durations.items()):
            by_route.setdefault(route, []).append(histogram)
            by_model.setdefault(model, []).append(histogram)
    for route, histograms in by_route.items():
        samples |= histogram_samples("ekiben_http_request_seconds", (("route", route),), *histograms)
    for model, histograms in by_model.items():
        if model:
            samples |= histogram_samples("ekiben_http_model_seconds", (("model", model),), *histograms)
    return samples


def _engine_samples(counters: Counters) -> Samples:
    labels = ("model", counters.model), ("version", counters.version)
    samples: Samples = {
        ("ekiben_engine_requests", "_total", labels): counters.requests,
        ("ekiben_engine_bisected_batches", "_total", labels): counters.bisected_batches,
        ("ekiben_engine_steps", "_total", labels): counters.steps,
        ("ekiben_engine_padding_steps", "_total", labels): counters.padded_steps,
    }
    for mode, count in ("inline", counters.inline_batches), ("thread", counters.batches - counters.inline_batches):
        samples["ekiben_engine_batches", "_total", (*labels, ("mode", mode))] = count
    for outcome in ("executed", "failed", "cancelled", "expired", "late"):
        count = getattr(counters, f"{outcome}_items")
        samples["ekiben_engine_items", "_total", (*labels, ("outcome", outcome))] = count
    for reason, count in list(counters.refused.items()):
        samples["ekiben_engine_refused", "_total", (*labels, ("reason", reason))] = count
    samples["ekiben_engine_queue_items", "", labels] = counters.queued_items
    if counters.last_request_at:
        last_request = round(STARTED_AT + counters.last_request_at, 3)
        samples["ekiben_engine_last_request_timestamp_seconds", "", labels] = last_request
    for outcome, durations in ("success", counters.succeeded), ("fail", counters.failed):
        labelled = (*labels, ("outcome", outcome))
        samples["ekiben_engine_request_seconds", "_count", labelled] = durations.count
        samples["ekiben_engine_request_seconds", "_sum", labelled] = durations.sum_s
    # A language model whose logits nobody asks for has no batches.
    if counters.batches or not counters.generation.max_kv_cache_bytes:
        samples |= histogram_samples("ekiben_engine_queue_seconds", labels, counters.queue_s)
        samples |= histogram_samples("ekiben_engine_compute_seconds", labels, counters.compute_s)
    if counters.generation.max_kv_cache_bytes:
        samples |= _generation_samples(counters.generation, labels)
    return samples


def _generation_samples(counters: GenerationCounters, labels: Labels) -> Samples:
    samples: Samples = {
        ("ekiben_prompt_tokens", "_total", labels): counters.prompt_tokens,
        ("ekiben_generation_tokens", "_total", labels): counters.generated_tokens,
        ("ekiben_num_requests_running", "", labels): counters.running,
        ("ekiben_num_requests_waiting", "", labels): counters.waiting,
        ("ekiben_kv_cache_used_bytes", "", labels): counters.kv_cache_bytes,
        ("ekiben_kv_cache_max_bytes", "", labels): counters.max_kv_cache_bytes,
        ("ekiben_prefix_cache_queries", "_total", labels): counters.prefix_queried_tokens,
        ("ekiben_prefix_cache_hits", "_total", labels): counters.prefix_hit_tokens,
        ("ekiben_decode_runs", "_total", labels): counters.decode_runs,
        ("ekiben_decode_rows", "_total", labels): counters.decode_rows,
    }
    for reason, count in list(counters.finished.items()):
        samples["ekiben_request_success", "_total", (*labels, ("finished_reason", reason))] = count
    samples |= histogram_samples("ekiben_time_to_first_token_seconds", labels, counters.first_token_s)
    samples |= histogram_samples("ekiben_inter_token_latency_seconds", labels, counters.inter_token_s)
    return samples


def merged_samples(state: ServiceState) -> Samples:
    """Return the samples of all workers."""
    samples = collect_samples(state)
    return samples if state.multiprocess_metrics is None else state.multiprocess_metrics.merge(samples)


async def _metrics(state: ServiceState, request: HttpRequest) -> Response:
    samples = merged_samples(state)
    if _prefers_openmetrics(request.header("accept")):
        return Response(OPENMETRICS_TYPE, render_openmetrics(samples, _exemplars(state.request_metrics)), VARY)
    return Response(PROMETHEUS_TYPE, render_text(samples), VARY)


def _exemplars(metrics: RequestMetrics) -> dict[Key, Exemplar]:
    """The latest trace of this worker for each bar of the histograms by route."""
    return {
        bucket("ekiben_http_request_seconds", (("route", route),), number): Exemplar(
            {"trace_id": exemplar.trace_id}, exemplar.seconds, exemplar.recorded_at
        )
        for (route, number), exemplar in sorted(metrics.exemplars.items())
    }


def _prefers_openmetrics(accept: str) -> bool:
    """Whether the header names OpenMetrics at a quality that no other text format exceeds."""
    qualities = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        media_type, *parameters = (text.strip().lower() for text in part.split(";"))
        if media_type in qualities:
            given = next((text.removeprefix("q=") for text in parameters if text.startswith("q=")), "1")
            quality = float(given) if given.replace(".", "", 1).isdigit() and given.isascii() else 0.0
            qualities[media_type] = max(qualities[media_type], quality)
    return qualities["application/openmetrics-text"] > 0 and (
        qualities["application/openmetrics-text"] >= qualities["text/plain"]
    )


VARY = [("vary", "accept")]
ROUTES = (ReadRoute(name="/metrics", handle=_metrics, scope="metrics"),)
