"""The report names what drifts, most first, and says when rows are too few to tell."""

from typing import Any

import numpy as np
import pytest

from service.engine.sessions.model import Model
from service.scoring.drift.report import describe_drift, drift_report
from tests.service.distributions import distributions, input_values
from tests.service.scoring.inputs import images

FAMILY = "image-classifier"


def report_of(models: dict[str, Model], pixels: Any, *, shards: int = 1, **options: Any) -> dict[str, Any]:
    """The report of pictures that the model gives labels and confidences as in its distributions."""
    known = distributions(FAMILY)
    parts = [known.count_inputs(input_values({"images": part})) for part in np.array_split(pixels, shards)]
    counts = [{name: bins.tolist() for name, bins in part.items()} for part in parts]
    summary = {
        "scored": len(pixels),
        "labels": dict(zip(("dog", "cat", "owl"), known.predictions["label"].counts, strict=True)),
        "confidence": list(known.predictions["confidence"].counts),
        "options": options,
    }
    return drift_report(models[FAMILY].manifest, known, summary, counts)


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {statistic["name"]: statistic["verdict"] for statistic in report["drift"]["statistics"]}


def test_rows_like_the_reference_are_stable(models: dict[str, Model]) -> None:
    report = report_of(models, images(600, seed=5))
    assert set(verdicts(report)) == {"input brightness", "input contrast", "predicted label", "predicted confidence"}
    assert set(verdicts(report).values()) == {report["drift"]["verdict"]} == {"stable"}
    assert describe_drift(report["drift"]) == ""
    assert (report["drift"]["reference"], report["drift"]["reference_rows"]) == ("random items", 400)


def test_brighter_pictures_drift_largely(models: dict[str, Model]) -> None:
    report = report_of(models, images(600) // 2 + 128)
    assert report["drift"]["verdict"] == "large"
    first = report["drift"]["statistics"][0]
    assert first["name"].startswith("input ")
    assert first["psi"] > 5
    assert first["distance"] > 0.8
    assert first["noise"] < 0.2
    assert (first["rows"], sum(first["counts"]), sum(first["reference"])) == (600, 600, 400)
    assert describe_drift(report["drift"]) == f"large drift of {first['name']} (PSI {first['psi']:.2f}), and 1 more"
    assert [s["psi"] for s in report["drift"]["statistics"]] == sorted(
        (s["psi"] for s in report["drift"]["statistics"]), reverse=True
    )


def test_the_order_and_number_of_shards_changes_nothing(models: dict[str, Model]) -> None:
    pixels = images(300)
    assert report_of(models, pixels) == report_of(models, pixels, shards=7) == report_of(models, pixels[::-1])


def test_few_rows_say_so_unless_they_drift_beyond_noise(models: dict[str, Model]) -> None:
    # Labels and confidences of the summary are those of 400 items; 30 rows bound what they say.
    assert set(verdicts(report_of(models, images(30))).values()) == {"too few rows"}
    assert report_of(models, images(30))["drift"]["verdict"] == "too few rows"
    assert verdicts(report_of(models, images(30) // 8))["input brightness"] == "large"


def test_a_job_without_rows_is_too_small(models: dict[str, Model]) -> None:
    known = distributions(FAMILY)
    summary: dict[str, Any] = {"scored": 0, "labels": {}, "confidence": [], "options": {}}
    report = drift_report(models[FAMILY].manifest, known, summary, [])
    assert set(verdicts(report).values()) == {"too few rows"}
    assert {statistic["psi"] for statistic in report["drift"]["statistics"]} == {0.0}
    assert {statistic["noise"] for statistic in report["drift"]["statistics"]} == {None}


def test_labels_of_another_threshold_are_not_compared(models: dict[str, Model]) -> None:
    assert "predicted label" not in verdicts(report_of(models, images(300), threshold=0.9))


@pytest.mark.parametrize(
    ("family", "reason"), [("language-model", "a model that generates"), (FAMILY, "export the model again")]
)
def test_a_model_without_distributions_has_a_reason(family: str, reason: str, models: dict[str, Model]) -> None:
    report = drift_report(models[family].manifest, None, {}, [])
    assert report["drift"] is None
    assert reason in report["drift_reason"]
    assert describe_drift(report["drift"]) == ""
