"""Triton's statistics of models, made of the samples of GET /metrics.

Invariant: each number is that of a metric of the same model and version, over all workers.
"""

from typing import Any

from service.errors import EkibenError
from service.http.route import ServiceState
from service.http.telemetry.exposition import Samples
from service.http.wire.oip_request import ANY_VERSION
from service.tasks.faults import describe_value

Document = dict[str, Any]
# The stages of Triton that our computing does not tell apart: their time is within that of the graph.
WITHIN_COMPUTE = ("compute_input", "compute_output")


def model_statistics(state: ServiceState, samples: Samples, name: str = "", version: str | None = None) -> Document:
    """Return the statistics of the version in use of one model or of all, or of one version that has served.

    Triton's clients read the version as a number, so the one in use is called "1" unless it was named; `served_version`
    is its real name. Raises EkibenError("unknown-model").
    """
    rows = {row["name"]: row["version"] for row in state.repository.list_models()}
    if name and name not in rows:
        state.repository.describe_model(name)  # raises unknown-model
    if version and version != ANY_VERSION:
        counted = {(labels["model"], labels["version"]) for labels in _labels(samples)}
        if version != rows[name] and (name, version) not in counted:
            raise EkibenError("unknown-model", f"{name} has not served version {describe_value(version)}")
        return {"model_stats": [_statistics(samples, name, version, called=version)]}
    return {
        "model_stats": [
            _statistics(samples, model, current, called=ANY_VERSION)
            for model, current in rows.items()
            if current and name in {"", model}
        ]
    }


def _labels(samples: Samples) -> list[dict[str, str]]:
    return [dict(labels) for family, _, labels in samples if family == "ekiben_engine_requests"]


def _statistics(samples: Samples, model: str, version: str, *, called: str) -> Document:
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
        "version": called,
        "served_version": version,
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
