"""The metric families of the service, and their text formats: Prometheus's own, and OpenMetrics."""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import exposition as prometheus
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from service.engine.metrics import BOUNDS_S, Histogram

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, str, Labels]  # (family, suffix, labels)
Samples = dict[Key, float]

PROMETHEUS_TYPE = prometheus.CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS_TYPE = openmetrics.CONTENT_TYPE_LATEST


class Family(NamedTuple):
    kind: str  # of prometheus_client; "unknown" for counters whose names do not end in _total
    text: str
    labels: tuple[str, ...] = ()  # without `le`

    @property
    def suffix(self) -> str:
        """What the names of its samples have behind that of the family; a histogram has several."""
        return {"counter": "_total", "info": "_info"}.get(self.kind, "")


MODEL = ("model", "version")
FAMILIES = {
    "ekiben_build": Family(
        "info", "What is running.", ("version", "revision", "python", "onnxruntime", "bentoml", "granian")
    ),
    "ekiben_worker_starts": Family("counter", "Worker processes that were started, the ones that ended included."),
    "ekiben_workers": Family("gauge", "Worker processes that run."),
    "ekiben_ready_workers": Family("gauge", "Worker processes that are ready."),
    "ekiben_model_ready": Family("gauge", "Worker processes in which this version of a model is READY.", MODEL),
    "ekiben_provider_models": Family(
        "gauge",
        "READY models of all workers by what computes them, as their sessions report it: CUDAExecutionProvider or "
        "CPUExecutionProvider.",
        ("provider",),
    ),
    "ekiben_http_requests": Family(
        "counter",
        "Responses by route, model (left out if none was found) and status; 499: the client disconnected first.",
        ("route", "model", "status"),
    ),
    "ekiben_http_request_seconds": Family(
        "histogram", "Time from the request head to the response, by route.", ("route",)
    ),
    "ekiben_http_model_seconds": Family("histogram", "The same time, by the model that answered.", ("model",)),
    "ekiben_http_in_flight": Family("gauge", "Inference requests in progress."),
    "ekiben_telemetry_dropped": Family(
        "counter", "Lines of the access log and captured requests that were not written.", ("output",)
    ),
    "ekiben_engine_requests": Family("counter", "Requests admitted by the engine.", MODEL),
    "ekiben_engine_request_seconds": Family(
        "summary", "Time of whole requests in the engine, by outcome: success or fail.", (*MODEL, "outcome")
    ),
    "ekiben_engine_last_request_timestamp_seconds": Family("gauge", "Unix time of the last request.", MODEL),
    "ekiben_engine_items": Family("counter", "Items by outcome.", (*MODEL, "outcome")),
    "ekiben_engine_refused": Family("counter", "Requests refused on arrival, by reason.", (*MODEL, "reason")),
    "ekiben_engine_batches": Family(
        "counter", "Batches computed, by mode: on the event loop (inline) or on a thread.", (*MODEL, "mode")
    ),
    "ekiben_engine_bisected_batches": Family("counter", "Batches split to isolate failing items.", MODEL),
    "ekiben_engine_steps": Family(
        "counter", "Steps requested, including the past; for models without steps, items.", MODEL
    ),
    "ekiben_engine_padding_steps": Family("counter", "Steps added by padding.", MODEL),
    "ekiben_engine_queue_items": Family("gauge", "Items in the queue.", MODEL),
    "ekiben_engine_queue_seconds": Family(
        "histogram", "Time from the first arrival in a batch to its computation.", MODEL
    ),
    "ekiben_engine_compute_seconds": Family("histogram", "Time to compute a batch.", MODEL),
    "ekiben_prompt_tokens": Family("counter", "Tokens of prompts, with those that the prefix cache held.", MODEL),
    "ekiben_generation_tokens": Family("counter", "Generated tokens.", MODEL),
    "ekiben_time_to_first_token_seconds": Family(
        "histogram", "Time from the arrival of a prompt to its first token.", MODEL
    ),
    "ekiben_inter_token_latency_seconds": Family("histogram", "Time between two tokens of one text.", MODEL),
    "ekiben_num_requests_running": Family("gauge", "Texts that are being generated.", MODEL),
    "ekiben_num_requests_waiting": Family("gauge", "Prompts that wait for a place.", MODEL),
    "ekiben_kv_cache_used_bytes": Family(
        "gauge", "Memory reserved for keys and values of the texts being generated.", MODEL
    ),
    "ekiben_kv_cache_max_bytes": Family("gauge", "Largest memory for keys and values.", MODEL),
    "ekiben_prefix_cache_queries": Family(
        "counter", "Tokens of prompts that were looked up in the prefix cache.", MODEL
    ),
    "ekiben_prefix_cache_hits": Family("counter", "Tokens of prompts that the prefix cache held.", MODEL),
    "ekiben_decode_runs": Family(
        "counter", "Runs of a language model that decode one token for each of their rows.", MODEL
    ),
    "ekiben_decode_rows": Family("counter", "Rows of these runs.", MODEL),
    "ekiben_request_success": Family(
        "counter", "Ended texts by reason: stop, length, abort, or the error.", (*MODEL, "finished_reason")
    ),
    "process_cpu_seconds": Family("counter", "CPU time of the worker processes, user and system."),
    "process_resident_memory_bytes": Family(
        "gauge", "Resident memory of the worker processes; what they share counts for each."
    ),
    "process_open_fds": Family("gauge", "Open file descriptors of the worker processes."),
    "nv_inference_request_success": Family("unknown", "Inference requests that were answered with 200.", MODEL),
    "nv_inference_request_failure": Family("unknown", "Inference requests that were answered otherwise.", MODEL),
    "nv_inference_count": Family("unknown", "Items that the model answered.", MODEL),
    "nv_inference_exec_count": Family("unknown", "Batches computed.", MODEL),
    "nv_inference_request_duration_us": Family("unknown", "Time from request heads to responses.", MODEL),
    "nv_inference_queue_duration_us": Family(
        "unknown", "Time from the first arrivals in batches to their computation.", MODEL
    ),
    "nv_inference_compute_infer_duration_us": Family("unknown", "Time to compute batches.", MODEL),
    "nv_inference_pending_request_count": Family("gauge", "Items in the queue.", MODEL),
}
# Gauges of which the largest of all workers counts, instead of their sum.
LARGEST = frozenset({"ekiben_engine_last_request_timestamp_seconds"})
# The bounds that are shown, as bins of a histogram: few, so that a model has at most 200 series. No request is answered
# in 256 µs, but a small batch is computed in that time; the last bound is 33.6 s.
FIRST_BIN, LAST_BIN = 8, 25
FIRST_BIN_OF = {"ekiben_engine_queue_seconds": 5, "ekiben_engine_compute_seconds": 5}


class SamplesCollector(Collector):
    def __init__(self, samples: Samples, exemplars: Mapping[Key, Exemplar]) -> None:
        self._metrics = {name: Metric(name, family.text, family.kind) for name, family in FAMILIES.items()}
        for key, value in samples.items():
            family, suffix, labels = key
            self._metrics[family].add_sample(family + suffix, dict(labels), value, exemplar=exemplars.get(key))

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in self._metrics.values() if metric.samples)


def render_text(samples: Samples) -> bytes:
    """Return the samples in the text format of Prometheus."""
    return prometheus.generate_latest(SamplesCollector(samples, {}))


def render_openmetrics(samples: Samples, exemplars: Mapping[Key, Exemplar]) -> bytes:
    """Return the samples in the text format of OpenMetrics 1.0, which has exemplars."""
    return openmetrics.generate_latest(SamplesCollector(samples, exemplars))


def histogram_samples(family: str, labels: Labels, *histograms: Histogram) -> Samples:
    """The samples of the sum of these histograms."""
    counts = [sum(bins) for bins in zip(*(histogram.counts for histogram in histograms), strict=True)]
    totals = list(accumulate(counts))
    samples: Samples = {
        bucket(family, labels, number): totals[number] for number in range(_first_bin(family), LAST_BIN + 1)
    }
    samples[family, "_bucket", (*labels, ("le", "+Inf"))] = totals[-1]
    samples[family, "_sum", labels] = sum(histogram.sum_s for histogram in histograms)
    samples[family, "_count", labels] = totals[-1]
    return samples


def bucket(family: str, labels: Labels, number: int) -> Key:
    """The key of the sample that counts the durations of a bin of `Histogram`."""
    bound = "+Inf" if number > LAST_BIN else str(BOUNDS_S[max(number, _first_bin(family))])
    return family, "_bucket", (*labels, ("le", bound))


def _first_bin(family: str) -> int:
    return FIRST_BIN_OF.get(family, FIRST_BIN)
