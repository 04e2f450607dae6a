"""What is known of a request before its body is read."""

import pytest

from service.errors import EkibenError
from service.http.wire.asgi import AsgiRequest
from service.http.wire.messages import announced, check_encoding, media_type, whole_number


def request(**headers: bytes) -> AsgiRequest:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return AsgiRequest({"method": "POST", "path": "/x", "headers": pairs}, None)  # type: ignore[arg-type]


def test_a_media_type_has_no_parameters_and_no_case() -> None:
    assert media_type(request(content_type=b" Application/JSON ; charset=utf-8")) == "application/json"
    assert media_type(request()) == ""


def test_a_body_that_would_have_to_be_decoded_is_refused() -> None:
    check_encoding(request())
    check_encoding(request(content_encoding=b"identity"))
    with pytest.raises(EkibenError, match="expected a body without content encoding, got 'gzip'") as caught:
        check_encoding(request(content_encoding=b"gzip"))
    assert caught.value.slug == "unsupported-media-type"


def test_the_announced_length() -> None:
    assert announced(request(content_length=b"10"), 10) == 10
    assert announced(request(), 10) is None
    assert announced(request(content_length=b"-1"), 10) is None
    assert announced(request(content_length=b"0" * 5000 + b"10"), 10) == 10
    for length in (b"11", b"0" * 5000 + b"11", b"11" * 5000):
        with pytest.raises(EkibenError, match="at most 10 bytes, got 11") as caught:
            announced(request(content_length=length), 10)
        assert caught.value.slug == "body-too-large"


def test_a_whole_number_is_digits_and_however_long_it_is_no_small_one() -> None:
    assert [whole_number(text) for text in ("0", "00", "007", "9" * 18, "0" * 9000 + "12")] == [0, 0, 7, 10**18 - 1, 12]
    assert all((whole_number(text) or 0) >= 10**18 for text in ("1" + "0" * 18, "9" * 9000, "0" * 30 + "1" * 19))
    assert [whole_number(text) for text in ("", "-1", "+1", "1.0", "1_0", " 1", "\u00b2", "\u0663")] == [None] * 8
