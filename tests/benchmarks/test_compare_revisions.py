"""The comparison of revisions reports medians and the median of the ratios of the rounds."""

import pytest

from benchmarks.engine.compare_revisions import request, table
from benchmarks.engine.server import ROOT


def test_table_has_medians_and_the_median_of_pairwise_ratios() -> None:
    old, new = (1.0, 2.0, 40.0), (1.0, 4.0, 4.0)
    samples = {"cell": {"old": [{"ms": value} for value in old], "new": [{"ms": value} for value in new]}}
    assert table(samples).splitlines()[-1] == "| cell | ms | 2.000 | 4.000 | 1.000 |"


def test_table_has_no_ratio_without_a_base() -> None:
    samples = {"cell": {"old": [{"failures": 0.0}], "new": [{"failures": 3.0}]}}
    assert table(samples).splitlines()[-1] == "| cell | failures | 0.000 | 3.000 | – |"


@pytest.mark.parametrize("body", ["json", "binary"])
def test_a_request_has_its_number_at_the_offset(body: str) -> None:
    content, offset = request(ROOT / "bundles", "mnist-cnn", body)
    head, _, rest = content.partition(b"\r\n\r\n")
    assert content[offset : offset + 8] == b"00000000"
    assert f"Content-Length: {len(rest)}\r\n".encode() in head
