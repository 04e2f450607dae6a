"""What the app behind fails with leaves in the service's words; what succeeds passes untouched."""

import asyncio
from typing import Any

import orjson
import pytest

from service.http.wire.framework_errors import Translated

SCOPE = {"type": "http", "method": "GET", "path": "/x", "headers": []}


def through(app: Any, scope: dict[str, Any] = SCOPE) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(Translated(app)(scope, receive, send))
    return sent


def answering(status: int, *bodies: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers or []})
        for i, body in enumerate(bodies):
            await send({"type": "http.response.body", "body": body, "more_body": i + 1 < len(bodies)})

    return app


def test_success_passes_untouched() -> None:
    sent = through(answering(200, b"a", b"b", headers=[(b"x", b"y")]))
    assert sent[0] == {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]}
    assert [message["body"] for message in sent[1:]] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        (400, "malformed-json", 400),
        (403, "invalid-request", 422),
        (404, "unknown-route", 404),
        (405, "method-not-allowed", 405),
        (415, "unsupported-media-type", 415),
        (422, "invalid-request", 422),
        (429, "overloaded", 503),
        (500, "internal", 500),
        (502, "internal", 500),
        (503, "not-ready", 503),
        (504, "timeout", 504),
    ],
)
def test_every_failure_is_said_in_our_words(status: int, code: str, ours: int) -> None:
    given = [(b"allow", b"POST"), (b"retry-after", b"3"), (b"content-length", b"16")]
    start, body = through(answering(status, b'[{"error"', b': "x"}]', headers=given))
    assert start["status"] == ours
    assert start["headers"][0] == (b"content-type", b"application/problem+json")
    again = [(b"retry-after", b"3"), (b"retry-after-ms", b"3000")] if ours == 503 else []
    assert start["headers"][2:] == [*again, (b"allow", b"POST")]
    assert orjson.loads(body["body"])["code"] == code


def test_an_exception_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def app(*_: Any) -> None:
        raise KeyError("secret")

    _, body = through(app)
    problem = orjson.loads(body["body"])
    assert problem["code"] == "internal"
    assert "secret" not in problem["detail"]
    assert problem["detail"].split()[-1] in caplog.text


def test_no_answer_at_all_is_a_failure() -> None:
    async def app(*_: Any) -> None: ...

    start, body = through(app)
    assert start["status"] == 500
    assert orjson.loads(body["body"])["code"] == "internal"


def test_our_own_words_pass_untouched() -> None:
    twice = Translated(answering(404))
    once = through(answering(404))
    assert through(twice) == once


def test_an_exception_after_the_start_is_the_servers() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError

    with pytest.raises(KeyError):
        through(app)


def test_other_protocols_pass() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    through(app, {"type": "lifespan"})
    assert seen == ["lifespan"]
