"""What is known of a request before its body is read."""

import pytest

from service.errors import EkibenError
from service.http.asgi import AsgiRequest
from service.http.exchange import announced, media_type


def request(**headers: bytes) -> AsgiRequest:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return AsgiRequest({"method": "POST", "path": "/x", "headers": pairs}, None)  # type: ignore[arg-type]


def test_a_media_type_has_no_parameters_and_no_case() -> None:
    assert media_type(request(content_type=b" Application/JSON ; charset=utf-8")) == "application/json"
    assert media_type(request()) == ""


def test_the_announced_length() -> None:
    assert announced(request(content_length=b"10"), 10) == 10
    assert announced(request(), 10) is None
    assert announced(request(content_length=b"-1"), 10) is None
    with pytest.raises(EkibenError, match="at most 10 bytes, got 11 bytes") as caught:
        announced(request(content_length=b"11"), 10)
    assert caught.value.slug == "body-too-large"
