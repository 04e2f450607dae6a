"""X-Request-Timeout-Ms is read, or refused by name."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import EkibenError
from service.http.timeouts import requested_timeout_s


def request(timeout_ms: str) -> Any:
    return SimpleNamespace(header=lambda name: timeout_ms if name == "x-request-timeout-ms" else "")


@pytest.mark.parametrize(
    ("timeout_ms", "seconds"),
    [("", None), ("1", 0.001), ("1500", 1.5), ("0" * 5000 + "1500", 1.5), ("86400000", 86_400.0)],
)
def test_the_header_is_in_milliseconds(timeout_ms: str, seconds: float | None) -> None:
    assert requested_timeout_s(request(timeout_ms)) == seconds


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
def test_anything_else_is_refused_with_what_came(timeout_ms: str) -> None:
    with pytest.raises(EkibenError, match="X-Request-Timeout-Ms: expected 1 to 86400000, got") as caught:
        requested_timeout_s(request(timeout_ms))
    assert caught.value.slug == "invalid-request"
    assert timeout_ms[:40] in caught.value.detail
