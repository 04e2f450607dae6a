"""Failures of the wrapped app become problem documents; successful responses pass unchanged."""

import asyncio
from typing import Any

import orjson
import pytest

from service.http.wire.framework_errors import ErrorTranslationMiddleware

SCOPE = {"type": "http", "method": "GET", "path": "/x", "headers": []}


def run(app: Any, scope: dict[str, Any] = SCOPE) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(ErrorTranslationMiddleware(app)(scope, receive, send))
    return sent


def app_that_sends(status: int, *bodies: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers or []})
        for i, body in enumerate(bodies):
            await send({"type": "http.response.body", "body": body, "more_body": i + 1 < len(bodies)})

    return app


def test_success_passes_unchanged() -> None:
    sent = run(app_that_sends(200, b"a", b"b", headers=[(b"x", b"y")]))
    assert sent[0] == {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]}
    assert [message["body"] for message in sent[1:]] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("status", "code", "translated"),
    [
        (400, "malformed-json", 400),
        (403, "forbidden", 403),
        (404, "unknown-route", 404),
        (405, "method-not-allowed", 405),
        (415, "unsupported-media-type", 415),
        (422, "invalid-request", 422),
        (429, "rate-limited", 429),
        (500, "internal", 500),
        (502, "internal", 500),
        (503, "not-ready", 503),
        (504, "timeout", 504),
    ],
)
def test_every_error_status_becomes_a_problem_document(status: int, code: str, translated: int) -> None:
    headers = [(b"allow", b"POST"), (b"retry-after", b"3"), (b"content-length", b"16")]
    start, body = run(app_that_sends(status, b'[{"error"', b': "x"}]', headers=headers))
    assert start["status"] == translated
    assert start["headers"][0] == (b"content-type", b"application/problem+json")
    retry = [(b"retry-after", b"3"), (b"retry-after-ms", b"3000")] if translated in {429, 503} else []
    assert start["headers"][2:] == [*retry, (b"allow", b"POST")]
    assert orjson.loads(body["body"])["code"] == code


def test_an_exception_is_logged_and_becomes_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    async def app(*_: Any) -> None:
        raise KeyError("secret")

    _, body = run(app)
    problem = orjson.loads(body["body"])
    assert problem["code"] == "internal"
    assert "secret" not in problem["detail"]
    assert problem["detail"].split()[-1] in caplog.text


def test_a_response_may_begin_without_headers() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404})
        await send({"type": "http.response.body"})

    start, body = run(app)
    assert (start["status"], orjson.loads(body["body"])["code"]) == (404, "unknown-route")


def test_an_app_without_a_response_is_an_internal_error() -> None:
    async def app(*_: Any) -> None: ...

    start, body = run(app)
    assert start["status"] == 500
    assert orjson.loads(body["body"])["code"] == "internal"


def test_problem_documents_pass_unchanged() -> None:
    wrapped = ErrorTranslationMiddleware(app_that_sends(404))
    expected = run(app_that_sends(404))
    assert run(wrapped) == expected


def test_an_exception_after_the_response_started_propagates() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError

    with pytest.raises(KeyError):
        run(app)


def test_other_scope_types_pass() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    run(app, {"type": "lifespan"})
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("bad_alloc"),
    ],
)
def test_a_lack_of_memory_is_not_the_fault_of_the_request(error: Exception) -> None:
    async def app(*_: Any) -> None:
        raise RuntimeError("tiny-images: the graph failed") from error

    start, body = run(app)
    assert (start["status"], orjson.loads(body["body"])["code"]) == (503, "overloaded")
    assert (b"retry-after", b"1") in start["headers"]
