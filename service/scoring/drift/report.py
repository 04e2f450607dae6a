"""Compares what a job has counted with the distributions of held-out data in the bundle, as a part of the summary."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from service.drift.distributions import (
    CONFIDENCE,
    LABEL,
    Counts,
    Distribution,
    Distributions,
    input_key,
    prediction_key,
)
from service.drift.divergence import sampling_noise, shannon_distance, stability_index
from service.manifest import Manifest

# The usual bounds of the population stability index (N. Siddiqi, Credit Risk Scorecards, 2006).
MODERATE, LARGE = 0.1, 0.25
# The probability that a job without drift has a statistic beyond its noise.
FALSE_ALARM = 0.01
# From the least to the most alarming.
VERDICTS = ("too few rows", "stable", "moderate", "large")
GENERATES = "a model that generates has no distributions of inputs and predictions"
NOT_IN_BUNDLE = "the bundle has no distributions of held-out data: export the model again, with 200 examples or more"


def drift_report(
    manifest: Manifest,
    distributions: Distributions | None,
    summary: Mapping[str, Any],
    counts: Iterable[Mapping[str, list[int]]],
) -> dict[str, Any]:
    """Return the fields of a summary about drift: `drift`, or null and the `drift_reason`.

    `counts` holds the counted bins of each shard, and `summary` the labels and confidences of all.
    """
    if distributions is None:
        return {"drift": None, "drift_reason": GENERATES if manifest.task == "generate" else NOT_IN_BUNDLE}
    totals = _totals(counts)
    if summary["options"].get("threshold") is None:
        totals[prediction_key(LABEL)] = np.array(list(summary["labels"].values()), np.int64)
    totals[prediction_key(CONFIDENCE)] = np.array(summary["confidence"], np.int64)
    compared = [(name, distribution, totals[name]) for name, distribution in _expected(distributions) if name in totals]
    statistics = [
        _compare(name, distribution, counted, rows=summary["scored"], number=len(compared))
        for name, distribution, counted in compared
    ]
    statistics.sort(key=lambda statistic: (-statistic["psi"], statistic["name"]))
    verdicts = [statistic["verdict"] for statistic in statistics]
    report = {
        "reference": distributions.source,
        "reference_rows": distributions.rows,
        "verdict": max(verdicts, key=VERDICTS.index, default=VERDICTS[0]),
        "left_out": distributions.left_out,
        "statistics": statistics,
    }
    return {"drift": report}


def describe_drift(report: Mapping[str, Any] | None) -> str:
    """Return in words which statistic of a report drifts most; empty if none does by much."""
    if report is None or report["verdict"] != "large":
        return ""
    large = [statistic for statistic in report["statistics"] if statistic["verdict"] == "large"]
    more = f", and {len(large) - 1} more" if len(large) > 1 else ""
    return f"large drift of {large[0]['name']} (PSI {large[0]['psi']:.2f}){more}"


def _totals(counts: Iterable[Mapping[str, list[int]]]) -> dict[str, Counts]:
    totals: dict[str, Counts] = {}
    for shard in counts:
        for name, bins in shard.items():
            totals[name] = totals.get(name, np.zeros(len(bins), np.int64)) + np.array(bins, np.int64)
    return totals


def _expected(distributions: Distributions) -> Iterator[tuple[str, Distribution]]:
    for name, distribution in distributions.inputs.items():
        yield input_key(name), distribution
    for name, distribution in distributions.predictions.items():
        yield prediction_key(name), distribution


def _compare(name: str, distribution: Distribution, counted: Counts, *, rows: int, number: int) -> dict[str, Any]:
    """One of `number` statistics; an item may count several times, so that `rows` bounds the size of the sample."""
    reference = np.array(distribution.counts, np.int64)
    if not len(counted):
        # No shard has counted anything.
        counted = np.zeros_like(reference)
    index = stability_index(reference, counted)
    noise = sampling_noise(reference, counted, probability=FALSE_ALARM / number, rows=rows)
    return {
        "name": name,
        "psi": round(index, 6),
        "distance": round(shannon_distance(reference, counted), 6),
        "noise": round(noise, 6) if np.isfinite(noise) else None,
        "verdict": _classify(index, noise),
        "rows": int(counted.sum()),
        "edges": list(distribution.edges),
        "reference": reference.tolist(),
        "counts": counted.tolist(),
    }


def _classify(index: float, noise: float) -> str:
    """Noise explains an index below it; if noise may look like a large drift, the index says nothing then."""
    if index < noise:
        return "too few rows" if noise >= LARGE else "stable"
    if index < MODERATE:
        return "stable"
    return "moderate" if index < LARGE else "large"
