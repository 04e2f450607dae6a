"""A sample of the requests to models is captured; nothing that happens to it reaches a request."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from service.http.telemetry.capture import capture
from service.http.telemetry.capture.capture import Capture
from service.http.telemetry.capture.files import PATTERN, ParquetFiles
from tests.service.http.telemetry.observed import observation, outcome

BODY = b'{"texts":["a"]}'


def captured(folder: Path, *ended: tuple[Any, Any], rate: float = 1.0) -> list[dict[str, Any]]:
    observer = Capture(ParquetFiles(folder, max_bytes=1 << 20), rate=rate, fields=frozenset({"texts", "body"}))
    for observed, how in ended:
        observer.begin(observed)
        observer.end(observed, how)
    observer.close()
    return [row for path in folder.glob(PATTERN) for row in pq.read_table(path).to_pylist()]


def test_requests_of_models_are_captured_and_no_others(tmp_path: Path) -> None:
    asked = observation(BODY, content_type="application/json; charset=utf-8", x_request_id="id-1")
    probe = observation(BODY, content_type="application/json")
    (row,) = captured(tmp_path, (asked, outcome()), (probe, outcome(model="")))
    assert (row["ekiben_id"], row["text"], row["ekiben_status"]) == ("id-1", "a", 200)


def test_tensors_behind_a_json_head_are_a_body(tmp_path: Path) -> None:
    asked = observation(BODY, content_type="application/json", inference_header_content_length="4")
    (row,) = captured(tmp_path, (asked, outcome()))
    assert (row["ekiben_body"], "text" in row) == (BODY, False)


def test_the_rate_is_a_share(tmp_path: Path) -> None:
    ended = [(observation(BODY, content_type="application/json"), outcome()) for _ in range(2000)]
    assert 380 < len(captured(tmp_path, *ended, rate=0.25)) < 620  # more than five standard deviations


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(capture, "MAX_ITEMS", 3)
    monkeypatch.setattr(capture, "FLUSH_S", 60.0)
    observer = Capture(ParquetFiles(tmp_path, max_bytes=1 << 20), rate=1.0, fields=frozenset())
    for _ in range(10):
        observer.end(observation(BODY), outcome())
    assert list(observer.samples().values()) == [7]
    observer.close()
