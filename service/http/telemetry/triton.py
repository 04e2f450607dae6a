"""Metrics under the names of Triton, for dashboards and autoscalers that know these.

Each is a number that the service has under a name of its own too. Triton's durations of input and output are left out:
they are not measured apart, and are part of the request.
"""

from http import HTTPStatus

from service.engine.metrics import Counters
from service.http.telemetry.exposition import Samples
from service.http.telemetry.request_metrics import ResponseMetrics


def triton_samples(counters: Counters, responses: ResponseMetrics) -> Samples:
    """The samples of one version of a model; `responses` are those that it answered."""
    labels = ("model", counters.model), ("version", counters.version)
    answered = list(responses.responses.items())
    num_successes = sum(count for (_, status), count in answered if status == HTTPStatus.OK)
    request_s = sum(histogram.sum_s for histogram in list(responses.durations.values()))
    return {
        ("nv_inference_request_success", "", labels): num_successes,
        ("nv_inference_request_failure", "", labels): sum(count for _, count in answered) - num_successes,
        ("nv_inference_count", "", labels): counters.executed_items,
        ("nv_inference_exec_count", "", labels): counters.batches,
        ("nv_inference_request_duration_us", "", labels): request_s * 1e6,
        ("nv_inference_queue_duration_us", "", labels): counters.queue_s.sum_s * 1e6,
        ("nv_inference_compute_infer_duration_us", "", labels): counters.compute_s.sum_s * 1e6,
        ("nv_inference_pending_request_count", "", labels): counters.queued_items,
    }
