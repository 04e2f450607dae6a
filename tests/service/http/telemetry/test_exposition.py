"""The text format and the metric families."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.engine.metrics import Histogram
from service.http.telemetry.exposition import FAMILIES, Samples, histogram_samples, render_text
from tests.service.http.telemetry.prometheus import scrape


def test_samples_keep_their_labels_and_values() -> None:
    samples: Samples = {
        ("ekiben_http_requests", "_total", (("route", "/classify"), ("status", "200"))): 3,
        ("ekiben_http_in_flight", "", ()): 2,
    }
    assert scrape(samples) == {"ekiben_http_requests_total,/classify,200": 3, "ekiben_http_in_flight": 2}


def test_histogram_buckets_are_cumulative() -> None:
    histogram = Histogram()
    for seconds in (0.000003, 0.00005, 0.5):
        histogram.add(seconds)
    seen = scrape(histogram_samples("ekiben_engine_compute_seconds", (), histogram))
    assert seen["ekiben_engine_compute_seconds_bucket,3.2e-05"] == 1
    assert seen["ekiben_engine_compute_seconds_bucket,6.4e-05"] == 2
    assert seen["ekiben_engine_compute_seconds_bucket,+Inf"] == seen["ekiben_engine_compute_seconds_count"] == 3
    assert seen["ekiben_engine_compute_seconds_sum"] == pytest.approx(0.500053)


def test_the_documentation_lists_every_family() -> None:
    page = (Path(__file__).parents[4] / "docs" / "observability.md").read_text()
    names = {name + family.suffix for name, family in FAMILIES.items()}
    assert (
        set(
            re.findall(
                r"^\| `(\w+?)(?:\{[\w,]+\})?` \| (?:counter|gauge|histogram|summary|info|unknown)", page, re.MULTILINE
            )
        )
        == names
    )


def test_only_families_with_samples_are_written_with_type_and_help() -> None:
    text = render_text({("ekiben_http_in_flight", "", ()): 2}).decode()
    (family,) = text_string_to_metric_families(text)
    assert (family.type, family.documentation) == FAMILIES["ekiben_http_in_flight"][:2]
