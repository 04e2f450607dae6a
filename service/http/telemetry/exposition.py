"""The metric families of the service and their text format for Prometheus."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.engine.metrics import BOUNDS_S, Histogram

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, str, Labels], float]  # (family, suffix, labels) -> value

FAMILIES = {
    "ekiben_http_requests": ("counter", "Responses by route and status; 499: the client disconnected first."),
    "ekiben_http_request_seconds": ("histogram", "Time from the request head to the response, by route."),
    "ekiben_http_in_flight": ("gauge", "Inference requests in progress."),
    "ekiben_ready_workers": ("gauge", "Worker processes that are ready."),
    "ekiben_model_ready": ("gauge", "Worker processes in which this version of a model is READY."),
    "ekiben_engine_requests": ("counter", "Requests admitted by the engine."),
    "ekiben_engine_request_seconds": ("summary", "Time of whole requests in the engine, by outcome: success or fail."),
    "ekiben_engine_last_request_timestamp_seconds": ("gauge", "Unix time of the last request; 0: there was none."),
    "ekiben_engine_items": ("counter", "Items by outcome."),
    "ekiben_engine_refused": ("counter", "Requests refused on arrival, by reason."),
    "ekiben_engine_batches": ("counter", "Batches computed, by mode: on the event loop (inline) or on a thread."),
    "ekiben_engine_bisected_batches": ("counter", "Batches split to isolate failing items."),
    "ekiben_engine_steps": ("counter", "Steps requested, including the past; for models without steps, items."),
    "ekiben_engine_padding_steps": ("counter", "Steps added by padding."),
    "ekiben_engine_queue_items": ("gauge", "Items in the queue."),
    "ekiben_engine_queue_seconds": ("histogram", "Time from the first arrival in a batch to its computation."),
    "ekiben_engine_compute_seconds": ("histogram", "Time to compute a batch."),
    "ekiben_prompt_tokens": ("counter", "Tokens of prompts, with those that the prefix cache held."),
    "ekiben_generation_tokens": ("counter", "Generated tokens."),
    "ekiben_time_to_first_token_seconds": ("histogram", "Time from the arrival of a prompt to its first token."),
    "ekiben_inter_token_latency_seconds": ("histogram", "Time between two tokens of one text."),
    "ekiben_num_requests_running": ("gauge", "Texts that are being generated."),
    "ekiben_num_requests_waiting": ("gauge", "Prompts that wait for a place."),
    "ekiben_kv_cache_used_bytes": ("gauge", "Memory reserved for keys and values of the texts being generated."),
    "ekiben_kv_cache_max_bytes": ("gauge", "Largest memory for keys and values."),
    "ekiben_prefix_cache_queries": ("counter", "Tokens of prompts that were looked up in the prefix cache."),
    "ekiben_prefix_cache_hits": ("counter", "Tokens of prompts that the prefix cache held."),
    "ekiben_decode_runs": ("counter", "Runs of a language model that decode one token for each of their rows."),
    "ekiben_decode_rows": ("counter", "Rows of these runs."),
    "ekiben_request_success": ("counter", "Ended texts by reason: stop, length, abort, or the error."),
}
# Gauges of which the largest of all workers counts, instead of their sum.
LARGEST = frozenset({"ekiben_engine_last_request_timestamp_seconds"})


class SamplesCollector(Collector):
    def __init__(self, samples: Samples) -> None:
        self._metrics = {name: Metric(name, text, kind) for name, (kind, text) in FAMILIES.items()}
        for (family, suffix, labels), value in samples.items():
            self._metrics[family].add_sample(family + suffix, dict(labels), value)

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in self._metrics.values() if metric.samples)


def render_text(samples: Samples) -> bytes:
    """Return the samples in the text format of Prometheus."""
    return generate_latest(SamplesCollector(samples))


def histogram_samples(family: str, labels: Labels, histogram: Histogram) -> Samples:
    bounds, totals = (*map(str, BOUNDS_S), "+Inf"), list(accumulate(histogram.counts))
    buckets = {(family, "_bucket", (*labels, ("le", le))): total for le, total in zip(bounds, totals, strict=True)}
    return {**buckets, (family, "_sum", labels): histogram.sum_s, (family, "_count", labels): totals[-1]}
