"""Triton's statistics of models, made of the samples of GET /metrics.

Invariant: each number is that of a metric of the same model and version, over all workers.
"""

from typing import Any

from service.errors import EkibenError
from service.http.oip.models import resolve_model
from service.http.route import ServiceState
from service.http.telemetry.exposition import Samples

Document = dict[str, Any]
# The stages of Triton that our computing does not tell apart: their time is within that of the graph.
WITHIN_COMPUTE = ("compute_input", "compute_output")


def model_statistics(state: ServiceState, samples: Samples, name: str = "", version: str | None = None) -> Document:
    """Return the statistics of one model, of one version of it, or of all; raises EkibenError("unknown-model")."""
    if name and version:
        version = resolve_model(state, name, version).manifest.version
    ready = {(row["name"], row["version"]) for row in state.repository.list_models() if row["version"]}
    if name and not any(name == model for model, _ in ready):
        state.repository.describe_model(name)  # raises unknown-model
    counted = {(row["model"], row["version"]) for row in _rows(samples)}
    chosen = [key for key in sorted(ready | counted) if name in {"", key[0]} and version in {None, "", key[1]}]
    if version and not chosen:
        raise EkibenError("unknown-model", f"no version {version!r} of {name}")
    return {"model_stats": [_statistics(samples, *key) for key in chosen]}


def _rows(samples: Samples) -> list[dict[str, str]]:
    return [dict(labels) for family, _, labels in samples if family == "ekiben_engine_requests"]


def _statistics(samples: Samples, model: str, version: str) -> Document:
    labels = ("model", model), ("version", version)

    def number(family: str, suffix: str = "_total", *more: tuple[str, str]) -> float:
        return samples.get((family, suffix, (*labels, *more)), 0.0)

    def duration(family: str, *more: tuple[str, str]) -> Document:
        seconds = number(family, "_sum", *more)
        return {"count": int(number(family, "_count", *more)), "ns": round(seconds * 1e9)}

    compute = duration("ekiben_engine_compute_seconds")
    batches = sum(number("ekiben_engine_batches", "_total", ("mode", mode)) for mode in ("inline", "thread"))
    return {
        "name": model,
        "version": version,
        "last_inference": round(number("ekiben_engine_last_request_timestamp_seconds", "") * 1e3),
        "inference_count": int(number("ekiben_engine_items", "_total", ("outcome", "executed"))),
        "execution_count": int(batches),
        "inference_stats": {
            "success": duration("ekiben_engine_request_seconds", ("outcome", "success")),
            "fail": duration("ekiben_engine_request_seconds", ("outcome", "fail")),
            "queue": duration("ekiben_engine_queue_seconds"),
            "compute_infer": compute,
            **{stage: {"count": compute["count"], "ns": 0} for stage in WITHIN_COMPUTE},
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [],
    }
