"""Pages of other origins cause no work, and read nothing unless their origin is allowed."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import EkibenError
from service.http.access.origins import OriginRule

APP = "https://app.example"
NONE, ONE, ANY = OriginRule(frozenset()), OriginRule(frozenset({APP})), OriginRule(frozenset({"*"}))


def request(method: str = "POST", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(method=method, header=lambda name: named.get(name, ""))


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({}, (True, True, True)),  # no browser
        ({"sec_fetch_site": "same-origin", "origin": "http://x", "host": "y"}, (True, True, True)),
        ({"sec_fetch_site": "none"}, (True, True, True)),  # the user
        ({"origin": "http://localhost:3000", "host": "LOCALHOST:3000"}, (True, True, True)),
        ({"origin": APP, "host": "localhost:3000"}, (False, True, True)),
        ({"origin": APP, "sec_fetch_site": "cross-site"}, (False, True, True)),
        ({"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, (False, False, True)),
        ({"origin": "https://evil.example", "host": "localhost:3000"}, (False, False, True)),
        ({"origin": "null", "host": "localhost:3000"}, (False, False, True)),  # a sandboxed page, or a file
        ({"origin": "null", "host": "null"}, (False, False, True)),
        ({"sec_fetch_site": "cross-site"}, (False, False, True)),
        ({"sec_fetch_site": "same-site"}, (False, False, True)),  # another port of this machine
        ({"origin": "\ufffd"}, (False, False, True)),
        ({"origin": "http://localhost:5173", "host": "localhost:3000"}, (False, False, True)),
    ],
)
def test_pages_of_other_origins_send_nothing(headers: dict[str, str], admitted: tuple[bool, ...]) -> None:
    for rule, expected in zip((NONE, ONE, ANY), admitted, strict=True):
        if expected:
            rule.check(request(**headers))
        else:
            with pytest.raises(EkibenError, match="EKIBEN_CORS_ORIGINS") as caught:
                rule.check(request(**headers))
            assert caught.value.slug == "forbidden"


def test_answers_name_the_origin_that_may_read_them() -> None:
    exposed = dict(ONE.reply_headers(request("GET", origin=APP)))
    assert exposed["access-control-allow-origin"] == APP
    assert "retry-after" in exposed["access-control-expose-headers"]
    assert exposed["vary"] == "Origin"
    for headers in ({}, {"origin": "https://evil.example"}, {"origin": f"{APP}.evil.example"}, {"origin": "null"}):
        assert ONE.reply_headers(request("GET", **headers)) == [("vary", "Origin")]


def test_any_origin_is_a_star_without_credentials() -> None:
    headers = dict(ANY.reply_headers(request("GET", origin="https://x.example")))
    assert headers["access-control-allow-origin"] == "*"
    assert not {"vary", "access-control-allow-credentials"} & headers.keys()


def preflight(rule: OriginRule, origin: str = APP, **headers: str) -> Any:
    asked = {"access_control_request_method": "POST", "origin": origin, **headers}
    return rule.answer_preflight(request("OPTIONS", **asked), ("POST",))


def test_a_preflight_is_answered() -> None:
    response = preflight(ONE, access_control_request_headers="Authorization, content-type,x-stainless-os")
    headers = dict(response.headers)
    assert (response.status, response.body) == (200, b"")
    assert headers["access-control-allow-methods"] == "POST"
    assert headers["access-control-allow-headers"] == "authorization, content-type,x-stainless-os"
    assert preflight(ANY, "https://x.example").status == 200


@pytest.mark.parametrize("names", ["a\r\nset-cookie: x", "a b", "\ufffd", ",", "a,,b", "a,b,"])
def test_what_is_no_list_of_headers_is_not_repeated(names: str) -> None:
    headers = dict(preflight(ONE, access_control_request_headers=names).headers)
    assert "access-control-allow-headers" not in headers


def test_a_preflight_of_another_origin_is_refused() -> None:
    with pytest.raises(EkibenError, match=r"origin 'https://evil\.example'") as caught:
        preflight(ONE, "https://evil.example")
    assert caught.value.slug == "forbidden"


@pytest.mark.parametrize(
    "asked",
    [
        request("OPTIONS"),
        request("OPTIONS", origin=APP),
        request("OPTIONS", access_control_request_method="POST"),
        request("POST", origin=APP, access_control_request_method="POST"),
    ],
)
def test_another_request_is_no_preflight(asked: Any) -> None:
    assert ONE.answer_preflight(asked, ("POST",)) is None
