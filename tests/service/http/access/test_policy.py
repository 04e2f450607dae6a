"""Every request passes all checks, in order; a check that fails admits nobody."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.engine.context import UNRESERVED
from service.errors import EkibenError
from service.http.access.hosts import HostRule
from service.http.access.policy import OPEN, AccessPolicy, access_policy
from service.keys.key_file import Scope
from service.settings import Settings
from tests.service.key_files import write_keys


def request(method: str = "POST", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(
        method=method,
        header=lambda name: named.get(name, ""),
        reply_headers=[],
        key_name="",
        key_permit=None,
        is_admitted=False,
    )


def check(policy: AccessPolicy, asked: Any, scope: Scope | None = "infer") -> Any:
    return policy.check(asked, scope=scope, methods=("POST",), infers=scope == "infer")


def refused(policy: AccessPolicy, asked: Any, scope: Scope | None = "infer") -> EkibenError:
    with pytest.raises(EkibenError) as caught:
        check(policy, asked, scope)
    assert not asked.is_admitted, "nobody may work for a request that was refused"
    return caught.value


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return write_keys(
        tmp_path / "keys", alice="scopes=infer", slow="scopes=infer rate=0.5 burst=2", few="scopes=infer concurrency=1"
    )  # fmt: skip


@pytest.fixture
def policy(keys: dict[str, str], tmp_path: Path) -> AccessPolicy:
    return access_policy(Settings(keys=tmp_path / "keys"), None)


def test_without_keys_names_of_this_machine_may_do_everything() -> None:
    policy = access_policy(Settings(), None)
    for scope in ("infer", "models", "metrics", "admin"):
        asked = request(host="localhost:3000", authorization="Bearer whatever")
        assert check(policy, asked, scope) is None  # type: ignore[arg-type]
        assert (asked.is_admitted, asked.key_permit, asked.key_name, asked.reply_headers) == (True, None, "", [])
    assert refused(policy, request(host="evil.example")).slug == "misdirected"


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"allow_anonymous": True}, True),
        ({"allow_anonymous": True, "allowed_hosts": "api.example"}, False),
        ({"allowed_hosts": "*"}, True),
        ({"allowed_hosts": "evil.example"}, True),
    ],
)
def test_which_names_are_checked(settings: dict[str, Any], allowed: bool) -> None:
    policy = access_policy(Settings(**settings), None)
    if allowed:
        assert check(policy, request(host="evil.example")) is None
    else:
        assert refused(policy, request(host="evil.example")).slug == "misdirected"


def test_with_keys_any_name_leads_to_the_service(policy: AccessPolicy, keys: dict[str, str]) -> None:
    assert check(policy, request(host="evil.example", x_api_key=keys["alice"])) is None


def test_probes_need_nothing(policy: AccessPolicy) -> None:
    asked = request("GET", host="10.1.2.3")
    assert check(policy, asked, None) is None
    assert asked.is_admitted
    assert check(access_policy(Settings(), None), request("GET", host="10.1.2.3"), None) is None


def test_a_refusal_says_how_to_come_in(policy: AccessPolicy, keys: dict[str, str]) -> None:
    asked = request()
    assert refused(policy, asked).slug == "unauthorized"
    assert asked.reply_headers == [("www-authenticate", 'Bearer realm="ekiben"')]
    asked = request(x_api_key=keys["alice"])
    assert refused(policy, asked, "admin").slug == "forbidden"
    challenge = 'Bearer realm="ekiben", error="insufficient_scope", scope="admin"'
    assert asked.reply_headers == [("www-authenticate", challenge)]
    assert asked.key_name == "alice"


def test_answers_and_refusals_say_what_is_left_of_a_rate(policy: AccessPolicy, keys: dict[str, str]) -> None:
    asked = [request(x_api_key=keys["slow"]) for _ in range(3)]
    check(policy, asked[0])
    check(policy, asked[1])
    error = refused(policy, asked[2])
    assert error.slug == "rate-limited"
    assert error.detail == "the key 'slow' may send 0.5 requests a second, 2 at once"
    assert error.retry_after_s == pytest.approx(2, abs=0.5)
    fields = [dict(one.reply_headers) for one in asked]
    assert {one["ratelimit-policy"] for one in fields} == {'"default";q=2;w=4'}
    assert [one["ratelimit"] for one in fields] == ['"default";r=1;t=2', '"default";r=0;t=4', '"default";r=0;t=4']


def test_a_place_is_free_again_when_the_permit_is_released(policy: AccessPolicy, keys: dict[str, str]) -> None:
    first = request(x_api_key=keys["few"])
    check(policy, first)
    assert dict(first.reply_headers)["ratelimit"] == '"concurrency";r=0'
    error = refused(policy, request(x_api_key=keys["few"]))
    assert (error.slug, error.detail) == ("rate-limited", "the key 'few' may have 1 requests in progress")
    first.key_permit.release()
    first.key_permit.release()  # once
    second = request(x_api_key=keys["few"])
    check(policy, second)
    assert refused(policy, request(x_api_key=keys["few"])).slug == "rate-limited"


def test_other_doors_use_the_same_keys_and_counters(policy: AccessPolicy, keys: dict[str, str]) -> None:
    identity = policy.check_key(f"Bearer {keys['few']}", "", "infer")
    assert identity is not None
    assert identity.key.name == "few"
    permit = policy.admit(identity, infers=True)
    assert refused(policy, request(x_api_key=keys["few"])).slug == "rate-limited"
    with pytest.raises(EkibenError, match="requests in progress"):
        policy.admit(identity, infers=True)
    permit.release()
    policy.admit(identity, infers=True)
    with pytest.raises(EkibenError, match="lacks the scope 'admin'"):
        policy.check_key("", keys["few"], "admin")
    with pytest.raises(EkibenError, match="a key is needed"):
        policy.check_key("", "", "infer")


def test_other_doors_are_open_without_keys() -> None:
    assert OPEN.check_key("", "", "admin") is None
    assert OPEN.admit(None, infers=True) is UNRESERVED


def test_a_check_that_fails_admits_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr(HostRule, "check", fail)
    asked = request(host="localhost")
    with pytest.raises(KeyError):
        check(access_policy(Settings(), None), asked)
    assert not asked.is_admitted
