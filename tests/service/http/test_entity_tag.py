"""A body that the client has already is not sent again."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.http.entity_tag import cacheable_response, entity_tag

TAG = entity_tag(b"body")


def test_the_tag_depends_on_the_body() -> None:
    assert TAG == entity_tag(b"body") != entity_tag(b"Body")
    assert TAG.startswith('W/"')
    assert TAG.endswith('"')


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 200), ('"other"', 200), (TAG.strip('W/"'), 200), ("\ufffd", 200),
        (TAG, 304), (f'"other", {TAG}', 304), (TAG.removeprefix("W/"), 304), ("*", 304),
    ],
)  # fmt: skip
def test_if_none_match(header: str, status: int) -> None:
    request: Any = SimpleNamespace(header=lambda name: header if name == "if-none-match" else "")
    response = cacheable_response(request, "text/css", b"body", TAG)
    assert (response.status, response.body) == (status, b"body" if status == 200 else b"")
    vary = [("vary", "accept-encoding")] if status == 304 else []  # those of a whole body come with its compression
    assert response.headers == [("etag", TAG), ("cache-control", "no-cache"), *vary]
