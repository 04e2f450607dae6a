"""The summary adds up records, and the histogram shows them."""

import io
from pathlib import Path

from PIL import Image

from service.engine.sessions.model import Model
from service.manifest import Manifest
from service.scoring.output.ledger import Record
from service.scoring.output.summary import confidence_histogram, encode, summarize
from tests.service.scoring.test_job import job_of


def record(scored: int, rejected: int, labels: list[int], confidence: list[int]) -> Record:
    return Record(
        key="k",
        file="a",
        first_row=0,
        scored=scored,
        rejected=rejected,
        labels=labels,
        confidence=confidence,
        parts={},
        sizes={},
    )


def test_records_add_up(models: dict[str, Model], tmp_path: Path) -> None:
    manifest: Manifest = models["text-classifier"].manifest
    records = [record(5, 1, [2, 3, 0], [0, 5]), record(4, 0, [0, 0, 4], [3, 1])]
    summary = summarize(job_of(tmp_path), manifest, 2, records, {})
    assert (summary["rows"], summary["scored"], summary["rejected"], summary["shards"]) == (10, 9, 1, 2)
    assert summary["labels"] == {"travel": 2, "food": 3, "sport": 4}
    assert summary["confidence"] == [3, 6]
    assert summary["parity"]["probabilities"]["atol"] == 1e-5
    assert summary["invariance"]["level"] == "bitwise"
    assert encode(summary) == encode(summarize(job_of(tmp_path), manifest, 2, records[::-1], {}))


def test_no_records(models: dict[str, Model], tmp_path: Path) -> None:
    summary = summarize(job_of(tmp_path), models["language-model"].manifest, 0, [], {})
    assert (summary["rows"], summary["labels"], summary["confidence"]) == (0, {}, [])
    assert Image.open(io.BytesIO(confidence_histogram(summary))).size == (640, 320)


def test_histogram_bars_are_scaled_to_the_highest(models: dict[str, Model], tmp_path: Path) -> None:
    records = [record(9, 0, [9, 0, 0], [9, 0, 3])]
    summary = summarize(job_of(tmp_path), models["text-classifier"].manifest, 1, records, {})
    picture = Image.open(io.BytesIO(confidence_histogram(summary))).convert("RGB")
    heights = [sum(picture.getpixel((x, y)) == (61, 118, 184) for y in range(320)) for x in (130, 320, 500)]
    assert heights[0] == 240
    assert heights[1] == 0
    assert heights[2] == 80
