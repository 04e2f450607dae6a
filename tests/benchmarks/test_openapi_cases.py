"""The generated requests find what a server does against its document."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from benchmarks.proof.openapi_cases import check_operations, report

NUMBER = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
ANSWER = {"description": "-", "content": {"application/json": {"schema": NUMBER}}}
ERROR = {"description": "-", "content": {"application/json": {"schema": {"type": "object"}}}}
BODY = {"required": True, "content": {"application/json": {"schema": NUMBER}}}
OPERATION = {"parameters": [], "requestBody": BODY, "responses": {"200": ANSWER, "422": ERROR}}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "t", "version": "1"},
    "paths": {
        "/double": {"post": OPERATION},
        "/live": {"get": {"parameters": [], "responses": {"200": {"description": "-"}}}},
    },
}


class Doubler(BaseHTTPRequestHandler):
    """Answers POST /double; `fault` is what it does wrong."""

    fault: ClassVar[str] = ""

    def do_GET(self) -> None:
        self._send(200, DOCUMENT if self.path == "/openapi.json" else {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            content = json.loads(body)
            is_valid = set(content) == {"x"} and type(content["x"]) is int
        except (ValueError, TypeError):
            is_valid = False
        if not is_valid:
            self._send(200 if self.fault == "accepts" else 422, {"x": 1} if self.fault == "accepts" else {})
        elif self.fault == "fails":
            self._send(500, {})
        elif self.fault == "another status":
            self._send(201, {"x": 2})
        else:
            self._send(200, {"x": "2"} if self.fault == "another schema" else {"x": 2})

    def _send(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain" if self.fault == "another type" else "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Doubler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("fault", "title"),
    [
        ("fails", "Server error"),
        ("another status", "Undocumented status code"),
        ("another schema", "Response violates schema"),
        ("another type", "Undocumented Content-Type"),
        ("accepts", "Schema-violating request accepted"),
    ],
)
def test_faults_are_found(fault: str, title: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doubler, "fault", fault)
    tallies = check_operations(address, num_cases=60, seed_value=1)
    assert title in {name for tally in tallies for name in tally.failures}


def test_a_server_that_keeps_to_its_document_has_none(address: str) -> None:
    tallies = check_operations(address, num_cases=60, seed_value=1)
    assert [tally.failures for tally in tallies] == [{}, {}]
    assert all(tally.num_cases for tally in tallies)
    assert "| POST /double |" in report(tallies)
