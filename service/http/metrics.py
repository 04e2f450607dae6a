"""GET /metrics: what the door and the engine counted, for Prometheus.

Invariant: a scrape of any worker tells of all of them, and a counter never falls, not even when a worker dies: each
worker leaves its samples in a shared folder every second, and what the dead have counted stays counted.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric

from service.engine.counters import BOUNDS_S, Counters, Histogram
from service.http.exchange import Reply, Request
from service.http.route import Host, Page

SHARE_EVERY_S = 1.0
FAMILIES = {
    "ekiben_http_requests": ("counter", "Requests answered, by route and status; 499: the client left before."),
    "ekiben_http_request_seconds": ("histogram", "From the head of a request to its answer, by route."),
    "ekiben_http_in_flight": ("gauge", "Work that was let in and is not answered yet."),
    "ekiben_ready_workers": ("gauge", "Worker processes that are ready."),
    "ekiben_model_ready": ("gauge", "Workers in which this version of a model serves."),
    "ekiben_engine_requests": ("counter", "Requests that the engine admitted."),
    "ekiben_engine_items": ("counter", "Items by what became of them."),
    "ekiben_engine_refused": ("counter", "Requests refused on arrival, by reason."),
    "ekiben_engine_batches": ("counter", "Batches computed, by where: on the event loop (inline) or on a thread."),
    "ekiben_engine_bisected_batches": ("counter", "Batches taken apart to find the items that fail."),
    "ekiben_engine_steps": (
        "counter",
        "Steps (with a past that was sent; items, of a model without steps) that were asked for.",
    ),
    "ekiben_engine_padding_steps": ("counter", "Steps that padding added to them."),
    "ekiben_engine_decoder_steps": ("counter", "Steps of texts that are generated: one token of one text each."),
    "ekiben_engine_queue_items": ("gauge", "Items that wait now."),
    "ekiben_engine_queue_seconds": ("histogram", "From a batch's first arrival to its beginning."),
    "ekiben_engine_compute_seconds": ("histogram", "Time to compute a batch."),
}
GAUGES = {name for name, (kind, _) in FAMILIES.items() if kind == "gauge"}
Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, str, Labels], float]  # (family, suffix, labels) -> value

log = logging.getLogger(__name__)


def samples(host: Host) -> Samples:
    """What this process has to say."""
    found: Samples = {}
    for (route, status), count in list(host.traffic.answers.items()):
        found["ekiben_http_requests", "_total", (("route", route), ("status", str(status)))] = count
    for route, histogram in list(host.traffic.seconds.items()):
        found |= _histogram("ekiben_http_request_seconds", (("route", route),), histogram)
    found["ekiben_http_in_flight", "", ()] = host.traffic.in_flight
    found["ekiben_ready_workers", "", ()] = float(not host.draining and host.repository.ready)
    for row in host.repository.list_models():
        if row["state"] == "READY":
            found["ekiben_model_ready", "", (("model", row["name"]), ("version", row["version"]))] = 1
    for counters in host.runner.counters():
        found |= _engine(counters)
    return found


def exposition(found: Mapping[tuple[str, str, Labels], float]) -> bytes:
    metrics = {name: Metric(name, text, kind) for name, (kind, text) in FAMILIES.items()}
    for (family, suffix, labels), value in found.items():
        metrics[family].add_sample(family + suffix, dict(labels), value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(metrics))
    return generate_latest(registry)


class Sharing:
    """Samples of several workers in one folder, a file for each process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{os.getpid()}.json"
        self._works = True

    def leave(self, own: Samples) -> None:
        content = orjson.dumps([[family, suffix, labels, value] for (family, suffix, labels), value in own.items()])
        draft = self._own.with_suffix(".tmp")
        draft.write_bytes(content)
        draft.replace(self._own)

    def merged(self, own: Samples) -> Samples:
        """With what the other workers left, the gauges of the dead aside."""
        total = dict(own)
        for path in self._folder.glob("*.json"):
            if path == self._own:
                continue
            alive = Path(f"/proc/{path.stem}").exists()
            for family, suffix, labels, value in orjson.loads(path.read_bytes()):
                key = family, suffix, tuple((name, text) for name, text in labels)
                if alive or family not in GAUGES:
                    total[key] = total.get(key, 0.0) + value
        return total

    async def keep(self, host: Host) -> None:
        """Leave this worker's samples again and again, until cancelled, and once more then."""
        with suppress(asyncio.CancelledError):
            while True:
                self._try_to_leave(samples(host))
                await asyncio.sleep(SHARE_EVERY_S)
        self._try_to_leave(samples(host))

    def _try_to_leave(self, own: Samples) -> None:
        """Say once that it fails, and once that it works again."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)  # whoever tidies up temporary folders may have taken it
            self.leave(own)
        except OSError as error:
            if self._works:
                log.error("/metrics of other workers lacks what is new here: cannot write %s: %s", self._own, error)
            self._works = False
        else:
            if not self._works:
                log.info("/metrics of other workers is whole again: %s is written", self._own)
            self._works = True


class _Collected:
    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in self._metrics.values() if metric.samples)


def _engine(counters: Counters) -> Samples:
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
    found: Samples = {}
    for (name, label, value), count in values.items():
        found[f"ekiben_engine_{name}", "_total", (*labels, *(((label, value),) if label else ()))] = count
    found["ekiben_engine_queue_items", "", labels] = counters.queued_items
    found |= _histogram("ekiben_engine_queue_seconds", labels, counters.queue_s)
    return found | _histogram("ekiben_engine_compute_seconds", labels, counters.compute_s)


def _histogram(family: str, labels: Labels, histogram: Histogram) -> Samples:
    found: Samples = {}
    total = 0
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), list(histogram.counts), strict=True):
        total += count
        found[family, "_bucket", (*labels, ("le", bound))] = total
    found[family, "_sum", labels] = histogram.sum_s
    found[family, "_count", labels] = total
    return found


async def _metrics(host: Host, _: Request) -> Reply:
    own = samples(host)
    found = own if host.sharing is None else host.sharing.merged(own)
    return Reply(CONTENT_TYPE_PLAIN_0_0_4, exposition(found))


ROUTES: tuple[Page, ...] = (Page(name="/metrics", answer=_metrics),)
