"""Requests carry the key and the deadline; the field of the items is found, or named."""

import ssl

import pytest

from ekiben.client.attempts import Deadline, ServiceCall
from ekiben.client.settings import Settings, items_of


def settings(url: str = "http://a:1", api_key: str | None = None) -> Settings:
    return Settings(url=url, api_key=api_key, timeout_s=3, max_retries=1, verify=True)


def test_request() -> None:
    call: ServiceCall[None] = ServiceCall(path="/predict", body=b"{}", parse=lambda _: None)
    request = settings(api_key="k").request(call, {"x-request-timeout-ms": "5"}, Deadline(1))
    assert (request.method, str(request.url), request.content) == ("POST", "http://a:1/predict", b"{}")
    assert request.headers["authorization"] == "Bearer k"
    assert request.headers["x-request-timeout-ms"] == "5"
    assert request.headers["content-length"] == "2"
    assert "authorization" not in settings().request(call, {}, Deadline(1)).headers


def test_deadline_of_the_call_comes_first() -> None:
    assert 2 < settings().deadline(None).left_s <= 3
    assert 8 < settings().deadline(9).left_s <= 9


def test_certificates_count_for_https() -> None:
    assert settings().ssl_context() is False
    context = settings("https://a").ssl_context()
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_items() -> None:
    assert items_of({"texts": "ab", "top_k": 1}) == ("texts", "ab", {"top_k": 1})
    for fields in ({}, {"texts": [], "rows": []}, {"top_k": 1}):
        with pytest.raises(TypeError, match="expected one of images, texts, sequences, rows, got"):
            items_of(fields)
