"""Weights of what a client accepts, and bodies that are packed."""

import asyncio
import gzip
import zlib
from typing import Any

import pytest

from service.errors import EkibenError
from service.http.wire.asgi import AsgiRequest
from service.http.wire.messages import Response
from service.http.wire.negotiation import CHUNK_BYTES, MIN_PACKED_BYTES, pack_response, quality, unpack_body

CONTENT = b"body " * 1000


def request(**headers: str) -> AsgiRequest:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return AsgiRequest({"method": "POST", "path": "/x", "headers": pairs}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("accept", "name", "expected"),
    [
        ("image/png", "image/png", 1.0),
        ("application/json, IMAGE/PNG;q=0.5", "image/png", 0.5),
        ("image/png;q=0", "image/png", 0.0),
        ("image/png;q=0, */*", "image/png", 0.0),
        ("image/*;q=0.2, */*;q=0.1", "image/png", 0.2),
        ("*/*;q=0.1", "image/png", 0.1),
        ("text/html", "image/png", 0.0),
        ("image/png; level=1; Q=0.25", "image/png", 0.25),
        ("image/png;q=1.000", "image/png", 1.0),
        ("image/png;q=7", "image/png", 1.0),
        ("image/pngx", "image/png", 0.0),
        ("", "image/png", 0.0),
        ("*;q=0.3", "gzip", 0.3),
        ("gzip;q=0, *", "gzip", 0.0),
    ],
)
def test_the_most_specific_range_has_the_weight(accept: str, name: str, expected: float) -> None:
    assert quality(accept, name) == expected


def unpack(body: bytes, coding: str, *, limit: int = 1 << 20) -> tuple[bytes, int]:
    """The unpacked body, and the largest number of bytes that was counted."""
    counted: list[int] = [0]

    def reserve(_: Any, num_bytes: int) -> None:
        counted.append(num_bytes)

    return asyncio.run(unpack_body(request(content_encoding=coding), body, limit, reserve)), max(counted)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (gzip.compress(CONTENT, mtime=0), "gzip"),
        (gzip.compress(CONTENT, mtime=0), "X-GZip"),
        (zlib.compress(CONTENT), "deflate"),
        (gzip.compress(CONTENT[:9], mtime=0) + gzip.compress(CONTENT[9:], mtime=0), "gzip"),
        (CONTENT, "identity"),
    ],
)
def test_a_packed_body_is_unpacked(body: bytes, coding: str) -> None:
    unpacked, counted = unpack(body, coding)
    assert unpacked == CONTENT
    assert counted == (0 if coding == "identity" else len(body) + len(CONTENT))


def test_an_empty_body_may_be_packed() -> None:
    assert unpack(gzip.compress(b"", mtime=0), "gzip")[0] == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_is_cut_off_anywhere_is_refused(coding: str) -> None:
    packed = gzip.compress(CONTENT, mtime=0) if coding == "gzip" else zlib.compress(CONTENT)
    for end in range(len(packed)):
        with pytest.raises(EkibenError, match=coding) as caught:
            unpack(packed[:end], coding)
        assert caught.value.slug == "malformed-message"


@pytest.mark.parametrize(
    ("body", "coding", "slug"),
    [
        (gzip.compress(CONTENT, mtime=0) + b"more", "gzip", "malformed-message"),
        (gzip.compress(CONTENT, mtime=0) + b"\0", "gzip", "malformed-message"),
        (zlib.compress(CONTENT) + b"more", "deflate", "malformed-message"),
        (gzip.compress(CONTENT, mtime=0)[:-8] + bytes(8), "gzip", "malformed-message"),  # another sum
        (CONTENT, "gzip", "malformed-message"),
        (zlib.compress(CONTENT)[2:-4], "deflate", "malformed-message"),  # without the header of zlib
        (gzip.compress(gzip.compress(CONTENT, mtime=0), mtime=0), "gzip, gzip", "unsupported-media-type"),
        (CONTENT, "br", "unsupported-media-type"),
        (CONTENT, "", "unsupported-media-type"),
    ],
)
def test_other_data_are_refused(body: bytes, coding: str, slug: str) -> None:
    with pytest.raises(EkibenError) as caught:
        unpack(body, coding)
    assert caught.value.slug == slug


def test_a_bomb_is_refused_at_the_limit() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    with pytest.raises(EkibenError, match="more than 1048576 bytes in gzip") as caught:
        unpack(bomb, "gzip")
    assert caught.value.slug == "body-too-large"


def test_other_requests_have_their_turn_while_a_body_is_unpacked() -> None:
    packed, turns = gzip.compress(bytes(8 * CHUNK_BYTES)), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(other())
        await unpack_body(request(content_encoding="gzip"), packed, 16 * CHUNK_BYTES, lambda *_: None)
        task.cancel()

    asyncio.run(main())
    assert turns >= 8


def test_an_unknown_coding_names_those_that_are_accepted() -> None:
    asked = request(content_encoding="br")
    with pytest.raises(EkibenError):
        asyncio.run(unpack_body(asked, b"", 9, lambda *_: None))
    assert asked.reply_headers == [("x-request-id", asked.id), ("accept-encoding", "gzip, deflate")]


def pack(body: bytes, accept: str, content_type: str = "application/json") -> Response:
    return asyncio.run(pack_response(request(accept_encoding=accept), Response(content_type, body)))


@pytest.mark.parametrize("size", [MIN_PACKED_BYTES, 1 << 16])
@pytest.mark.parametrize("accept", ["gzip", "br, gzip;q=0.1", "*", "gzip, identity", "gzip;q=0.5, identity;q=0"])
def test_an_answer_is_packed_where_that_is_asked_for(accept: str, size: int) -> None:
    body = b"a" * size
    response = pack(body, accept)
    assert gzip.decompress(response.body) == body
    assert len(response.body) < size / 10
    assert response.headers == [("vary", "accept-encoding"), ("content-encoding", "gzip")]


@pytest.mark.parametrize("accept", ["", "br", "gzip;q=0", "gzip;q=0.5, identity;q=0.6", "*;q=0"])
def test_an_answer_is_sent_as_it_is_where_that_is_asked_for(accept: str) -> None:
    response = pack(CONTENT, accept)
    assert (response.body, response.headers) == (CONTENT, [("vary", "accept-encoding")])


def test_an_answer_that_is_not_worth_it_is_sent_as_it_is() -> None:
    assert pack(b"a" * (MIN_PACKED_BYTES - 1), "gzip").headers == []
    assert pack(CONTENT, "gzip", "image/png").headers == []
    noise = zlib.compress(bytes(range(256)) * 5000, 9) + bytes(hash((i, 7)) % 251 for i in range(4000))
    assert pack(noise, "gzip").body in {noise, gzip.compress(noise, 1, mtime=0)}
