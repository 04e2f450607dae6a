"""The access log: one JSON object a line on standard output, for a sample of the responses and every 5xx."""

import os
import random
import time
from datetime import UTC, datetime

import orjson

from service.http.telemetry.background import BackgroundWriter
from service.http.telemetry.exposition import Samples
from service.http.telemetry.observation import Observation, Outcome
from service.http.wire.messages import Network, client_address

STDOUT = 1
FLUSH_S = 0.1
MAX_LINES, MAX_BYTES = 20_000, 8 << 20  # that wait for a reader of the output
MAX_CHARS = 200  # of a value that a client chose


class AccessLog:
    def __init__(self, rate: float, trusted_proxies: tuple[Network, ...], descriptor: int = STDOUT) -> None:
        """Log this share of the responses to an open file."""
        self._rate = rate
        self._trusted_proxies = trusted_proxies
        self._descriptor = descriptor
        self._writer = BackgroundWriter[bytes](
            "the access log", self._write, interval_s=FLUSH_S, max_items=MAX_LINES, max_bytes=MAX_BYTES
        )

    def begin(self, observation: Observation) -> None:
        """Nothing is logged before the end."""

    def end(self, observation: Observation, outcome: Outcome) -> None:
        if outcome.status < 500 and random.random() >= self._rate:  # noqa: S311 - a sample
            return
        request, trace = observation.request, observation.request.trace
        num_out = len(outcome.response.body) if outcome.response is not None else observation.num_sent
        line = orjson.dumps(
            {
                "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
                "id": request.id,
                "trace_id": trace.trace_id if trace is not None else None,
                "client": client_address(request, self._trusted_proxies)[:MAX_CHARS],
                "key": getattr(request, "key_name", None) or None,
                "method": request.method[:MAX_CHARS],
                "route": observation.route,
                "model": outcome.model or None,
                "version": outcome.version or None,
                "status": outcome.status,
                "seconds": round(outcome.seconds, 6),
                "bytes_in": len(observation.body),
                "bytes_out": num_out,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        self._writer.put(line, len(line))

    def samples(self) -> Samples:
        return {("ekiben_telemetry_dropped", "_total", (("output", "access-log"),)): self._writer.num_dropped}

    def close(self) -> None:
        self._writer.close()

    def _write(self, lines: list[bytes]) -> None:
        # One call a line: a pipe keeps lines of several workers apart only if each comes whole.
        for line in lines:
            rest = line
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
