"""GET /metrics: the samples of all workers in the text format of Prometheus."""

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.engine.metrics import Counters
from service.http.route import ReadRoute, ServiceState
from service.http.telemetry.exposition import Samples, histogram_samples, render_text
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
        samples |= _engine_samples(counters)
    return samples


def _engine_samples(counters: Counters) -> Samples:
    labels = ("model", counters.model), ("version", counters.version)
    values: dict[tuple[str, str, str], float] = {
        ("requests", "", ""): counters.requests,
        ("items", "outcome", "executed"): counters.executed_items,
        ("items", "outcome", "failed"): counters.failed_items,
        ("items", "outcome", "cancelled"): counters.cancelled_items,
        ("items", "outcome", "expired"): counters.expired_items,
        ("items", "outcome", "late"): counters.late_items,
        ("batches", "mode", "inline"): counters.inline_batches,
        ("batches", "mode", "thread"): counters.batches - counters.inline_batches,
        ("bisected_batches", "", ""): counters.bisected_batches,
        ("steps", "", ""): counters.steps,
        ("padding_steps", "", ""): counters.padded_steps,
        ("decoder_steps", "", ""): counters.decoder_steps,
        **{("refused", "reason", reason): count for reason, count in list(counters.refused.items())},
    }
    samples: Samples = {}
    for (name, label, value), count in values.items():
        samples[f"ekiben_engine_{name}", "_total", (*labels, *(((label, value),) if label else ()))] = count
    samples["ekiben_engine_queue_items", "", labels] = counters.queued_items
    samples |= histogram_samples("ekiben_engine_queue_seconds", labels, counters.queue_s)
    return samples | histogram_samples("ekiben_engine_compute_seconds", labels, counters.compute_s)


async def _metrics(state: ServiceState, _: HttpRequest) -> Response:
    samples = collect_samples(state)
    if state.multiprocess_metrics is not None:
        samples = state.multiprocess_metrics.merge(samples)
    return Response(CONTENT_TYPE_PLAIN_0_0_4, render_text(samples))


ROUTES: tuple[ReadRoute, ...] = (ReadRoute(name="/metrics", handle=_metrics),)
