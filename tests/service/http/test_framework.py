"""Requests of paths that are no routes are identified, counted and observed like the others."""

import asyncio
from typing import Any

import pytest

from service.http.framework import FRAMEWORK_PATH, FrameworkApp
from tests.service.http.granian.fakes import state_with


def run(app: Any, path: str = "/x", **headers: str) -> tuple[Any, list[Any]]:
    state, sent = state_with(), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": pairs, "client": None}
    asyncio.run(FrameworkApp(app, lambda: state)(scope, None, send))  # type: ignore[arg-type]
    return state.request_metrics, sent


def answering(status: int, *parts: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"x", b"y")]})
        for number, part in enumerate(parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    return app


def test_a_response_has_the_id_and_counts_under_one_name() -> None:
    metrics, sent = run(answering(200, b"a", b"b"), "/any/path", x_request_id="id-1")
    assert sent[0]["headers"] == [(b"x", b"y"), (b"x-request-id", b"id-1")]
    assert metrics.responses == {(FRAMEWORK_PATH, 200): 1}
    assert metrics.durations[FRAMEWORK_PATH].count == 1


def test_errors_have_the_id_too() -> None:
    metrics, sent = run(answering(404, b"no"), x_request_id="id-1")
    assert (sent[0]["status"], sent[0]["headers"][-1]) == (404, (b"x-request-id", b"id-1"))
    assert metrics.responses == {(FRAMEWORK_PATH, 404): 1}


def test_an_unforeseen_error_is_logged_under_the_id(caplog: pytest.LogCaptureFixture) -> None:
    async def app(*_: Any) -> None:
        raise KeyError("secret")

    metrics, sent = run(app, x_request_id="id-1")
    assert b"search the service log for id-1" in sent[1]["body"]
    assert "(id-1)" in caplog.text
    assert metrics.responses == {(FRAMEWORK_PATH, 500): 1}


def test_a_response_that_does_not_end_counts_as_a_disconnect() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})

    metrics, _ = run(app)
    assert metrics.responses == {(FRAMEWORK_PATH, 499): 1}


def test_other_protocols_pass() -> None:
    seen: list[Any] = []

    async def app(scope: Any, *_: Any) -> None:
        seen.append(scope)

    asyncio.run(FrameworkApp(app, state_with)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]
