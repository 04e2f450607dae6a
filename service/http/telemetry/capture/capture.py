"""Captures a sample of the requests to models as Parquet files, which `service.scoring` reads as input.

Invariant: nothing of a request or answer is written but the fields that the settings list, and no header ever. The
folder holds at most `max_bytes`: the oldest files go first. Requests never wait: what cannot be written is dropped.
"""

import random
import time
from collections import defaultdict

from service.http.telemetry.background import BackgroundWriter
from service.http.telemetry.capture.files import ParquetFiles
from service.http.telemetry.capture.rows import Captured, Row, rows_of
from service.http.telemetry.exposition import Samples
from service.http.telemetry.observation import Observation, Outcome
from service.http.wire.messages import JSON, media_type

FLUSH_S = 1.0
MAX_ITEMS, MAX_WAITING_BYTES = 10_000, 32 << 20


class Capture:
    def __init__(self, files: ParquetFiles, *, rate: float, fields: frozenset[str]) -> None:
        """Write this share of the requests, and of each these top-level fields of its request and its answer."""
        self._files = files
        self._rate = rate
        self._fields = fields
        self._writer = BackgroundWriter[Captured](
            "the capture of requests",
            self._write,
            interval_s=FLUSH_S,
            max_items=MAX_ITEMS,
            max_bytes=MAX_WAITING_BYTES,
        )

    def begin(self, observation: Observation) -> None:
        """Nothing is captured before the end."""

    def end(self, observation: Observation, outcome: Outcome) -> None:
        if not outcome.model or random.random() >= self._rate:  # noqa: S311 - a sample
            return
        request, body = observation.request, observation.body
        is_json = media_type(request) == JSON and not request.header("inference-header-content-length")
        captured = Captured(time.time(), request.id, observation.route, outcome, body, is_json)
        answer = outcome.response.body if outcome.response is not None else b""
        self._writer.put(captured, len(body) + len(answer))

    def samples(self) -> Samples:
        return {("ekiben_telemetry_dropped", "_total", (("output", "capture"),)): self._writer.num_dropped}

    def close(self) -> None:
        """Write what waits to files."""
        self._writer.close()
        self._files.close()

    def _write(self, captured: list[Captured]) -> None:
        rows: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
        for request in captured:
            rows[request.outcome.model, request.outcome.version] += rows_of(request, self._fields)
        for (model, version), of_model in rows.items():
            self._files.add(model, version, of_model)
        self._files.rotate()
