"""Parsing of request headers."""

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import EkibenError
from service.http.wire.asgi import AsgiRequest
from service.http.wire.messages import (
    client_address,
    declared_length,
    media_type,
    parse_digits,
    requested_timeout_s,
)


def request(**headers: bytes) -> AsgiRequest:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    scope = {"method": "POST", "path": "/x", "headers": pairs, "client": ("1.2.3.4", 5)}
    return AsgiRequest(scope, None, None)  # type: ignore[arg-type]


PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize(
    ("connection", "forwarded", "proxies", "client"),
    [
        ("9.9.9.9:5", "1.2.3.4", (), "9.9.9.9:5"),
        ("9.9.9.9:5", "1.2.3.4", PROXIES, "9.9.9.9:5"),
        ("10.1.2.3:5", "1.2.3.4", PROXIES, "1.2.3.4"),
        ("::1:5", "2001:db8::7", PROXIES, "2001:db8::7"),
        ("[::1]:5", "1.2.3.4", PROXIES, "1.2.3.4"),
        ("10.1.2.3:5", "6.6.6.6, 1.2.3.4, 10.9.9.9", PROXIES, "1.2.3.4"),
        ("10.1.2.3:5", "", PROXIES, "10.1.2.3:5"),
        ("10.1.2.3:5", "10.4.4.4", PROXIES, "10.1.2.3:5"),
        ("unix:", "1.2.3.4", PROXIES, "unix:"),
    ],
)
def test_a_forwarded_address_counts_only_from_a_trusted_proxy(
    connection: str, forwarded: str, proxies: tuple[Any, ...], client: str
) -> None:
    request: Any = SimpleNamespace(client=connection, header={"x-forwarded-for": forwarded}.__getitem__)
    assert client_address(request, proxies) == client


def test_media_type_drops_parameters_and_case() -> None:
    assert media_type(request(content_type=b" Application/JSON ; charset=utf-8")) == "application/json"
    assert media_type(request()) == ""


def test_declared_length_is_limited() -> None:
    assert declared_length(request(content_length=b"10"), 10) == 10
    assert declared_length(request(), 10) is None
    assert declared_length(request(content_length=b"-1"), 10) is None
    assert declared_length(request(content_length=b"0" * 5000 + b"10"), 10) == 10
    for length in (b"11", b"0" * 5000 + b"11", b"11" * 5000):
        with pytest.raises(EkibenError, match="at most 10 bytes, got 11") as caught:
            declared_length(request(content_length=length), 10)
        assert caught.value.slug == "body-too-large"


def test_parse_digits_accepts_only_digits_and_keeps_long_numbers_large() -> None:
    assert [parse_digits(text) for text in ("0", "00", "007", "9" * 18, "0" * 9000 + "12")] == [0, 0, 7, 10**18 - 1, 12]
    assert all((parse_digits(text) or 0) >= 10**18 for text in ("1" + "0" * 18, "9" * 9000, "0" * 30 + "1" * 19))
    assert [parse_digits(text) for text in ("", "-1", "+1", "1.0", "1_0", " 1", "\u00b2", "\u0663")] == [None] * 8


def with_timeout(timeout_ms: str) -> Any:
    return SimpleNamespace(header=lambda name: timeout_ms if name == "x-request-timeout-ms" else "")


@pytest.mark.parametrize(
    ("timeout_ms", "seconds"),
    [("", None), ("1", 0.001), ("1500", 1.5), ("0" * 5000 + "1500", 1.5), ("86400000", 86_400.0)],
)
def test_the_requested_timeout_is_in_milliseconds(timeout_ms: str, seconds: float | None) -> None:
    assert requested_timeout_s(with_timeout(timeout_ms)) == seconds


@pytest.mark.parametrize(
    "timeout_ms",
    [
        "0",
        "-1",
        "1.5",
        "1e3",
        " 5",
        "\u00b2",
        "soon",
        "86400001",
        "0" * 12 + "86400001",
        "9" * 5000,
        "0" * 5000,
        "\ufffd",
    ],
)
def test_any_other_timeout_is_refused_with_its_value(timeout_ms: str) -> None:
    with pytest.raises(EkibenError, match="X-Request-Timeout-Ms: expected 1 to 86400000, got") as caught:
        requested_timeout_s(with_timeout(timeout_ms))
    assert caught.value.slug == "invalid-request"
    assert caught.value.detail.endswith(f", got {timeout_ms[:40]!r}")
