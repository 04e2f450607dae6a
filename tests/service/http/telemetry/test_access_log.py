"""Lines of the access log: complete, bounded, and nothing that could be a secret."""

import tempfile
from ipaddress import ip_network
from typing import Any

import orjson
import pytest

from service.http.telemetry.access_log import MAX_CHARS, AccessLog
from service.http.wire.messages import Response
from tests.service.http.telemetry.observed import observation, outcome


def logged(rate: float, *ended: tuple[Any, Any]) -> list[dict[str, Any]]:
    with tempfile.TemporaryFile() as file:
        log = AccessLog(rate, (ip_network("10.0.0.0/8"),), file.fileno())
        for observed, how in ended:
            log.begin(observed)
            log.end(observed, how)
        log.close()
        file.seek(0)
        return [orjson.loads(line) for line in file.read().splitlines()]


def test_a_line_says_who_asked_what_and_how_it_ended() -> None:
    headers = {"x_request_id": "id-1", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "x_forwarded_for": "192.0.2.7"}
    observed = observation(b"12345", authorization="Bearer secret", **headers)
    observed.request.key_name = "mobile"  # type: ignore[attr-defined]  # set where keys are checked
    (line,) = logged(1.0, (observed, outcome(201, Response("text/plain", b"four"))))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "id": "id-1", "trace_id": "1" * 32, "client": "192.0.2.7", "key": "mobile", "method": "POST",
        "route": "/classify", "model": "m", "version": "v", "status": 201, "seconds": 0.25,
        "bytes_in": 5, "bytes_out": 4,
    }  # fmt: skip


def test_what_is_unknown_is_null() -> None:
    (line,) = logged(1.0, (observation(), outcome(499, None, "", "")))
    assert [name for name, value in line.items() if value is None] == ["trace_id", "key", "model", "version"]
    assert (line["bytes_in"], line["bytes_out"]) == (0, 0)


def test_errors_of_the_service_are_logged_at_any_rate() -> None:
    lines = logged(1e-12, *((observation(), outcome(status)) for status in (200, 404, 500, 503)))
    assert [line["status"] for line in lines] == [500, 503]


def test_the_rate_is_a_share() -> None:
    lines = logged(0.25, *((observation(), outcome()) for _ in range(4000)))
    assert 850 < len(lines) < 1150  # five standard deviations


@pytest.mark.parametrize("client", ["x" * 5000, 'a"b\n{"time":1}'])
def test_a_line_is_short_and_one_line_whatever_a_client_sends(client: str) -> None:
    (line,) = logged(1.0, (observation(client="10.0.0.1:1", x_forwarded_for=client), outcome()))
    assert line["client"] == client[:MAX_CHARS]
