"""GET /metrics: the samples of all workers in the text format of Prometheus."""

import time

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.engine.metrics import GenerationCounters
from service.http.route import ReadRoute, ServiceState
from service.http.telemetry.exposition import Labels, Samples, histogram_samples, render_text
from service.http.wire.messages import HttpRequest, Response


def collect_samples(state: ServiceState) -> Samples:
    """Return the samples of this process."""
    samples: Samples = {}
    for (route, status), count in list(state.request_metrics.responses.items()):
        samples["ekiben_http_requests", "_total", (("route", route), ("status", str(status)))] = count
    for route, histogram in list(state.request_metrics.durations.items()):
        samples |= histogram_samples("ekiben_http_request_seconds", (("route", route),), histogram)
    samples["ekiben_http_in_flight", "", ()] = state.request_metrics.in_flight
    samples["ekiben_ready_workers", "", ()] = float(not state.draining and state.repository.ready)
    for row in state.repository.list_models():
        if row["state"] == "READY":
            samples["ekiben_model_ready", "", (("model", row["name"]), ("version", row["version"]))] = 1
    for counters in state.runner.counters():
        labels = ("model", counters.model), ("version", counters.version)
        samples |= {
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
            last_request = time.time() - (time.monotonic() - counters.last_request_at)
            samples["ekiben_engine_last_request_timestamp_seconds", "", labels] = round(last_request, 3)
        for outcome, durations in ("success", counters.succeeded), ("fail", counters.failed):
            labelled = (*labels, ("outcome", outcome))
            samples["ekiben_engine_request_seconds", "_count", labelled] = durations.count
            samples["ekiben_engine_request_seconds", "_sum", labelled] = durations.sum_s
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


async def _metrics(state: ServiceState, _: HttpRequest) -> Response:
    return Response(CONTENT_TYPE_PLAIN_0_0_4, render_text(merged_samples(state)))


ROUTES = (ReadRoute(name="/metrics", handle=_metrics, scope="metrics"),)
