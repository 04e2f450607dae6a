"""Who sent a request follows from its key; the keys follow their file."""

import logging
from pathlib import Path

import pytest

from service.errors import EkibenError
from service.http.access.keyring import Keyring, check_scope, describe_policy
from service.http.access.rates import KeyLimits
from service.keys.key_file import Key, new_key
from tests.service.key_files import write_keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def keyring_of(path: Path, now: float = 0.0) -> Keyring:
    return Keyring(path, KeyLimits(None), clock=lambda: now)


def refusal(keyring: Keyring, authorization: str = "", api_key: str = "") -> str:
    with pytest.raises(EkibenError) as caught:
        keyring.identify(authorization, api_key)
    assert caught.value.slug == "unauthorized"
    return caught.value.detail


def test_a_key_is_a_bearer_token_or_has_a_header_of_its_own(path: Path) -> None:
    key = write_keys(path, alice="scopes=infer")["alice"]
    keyring = keyring_of(path)
    for authorization, api_key in (
        (f"Bearer {key}", ""), (f"Bearer   {key}", ""), (f"bearer {key}", ""),
        (f"BEARER   {key} ", ""), ("", key), (f"Bearer {key}", key),
        ("Basic dTpw", key),  # a proxy's
    ):  # fmt: skip
        assert keyring.identify(authorization, api_key).key.name == "alice"


def test_what_is_no_key_is_refused(path: Path) -> None:
    keys = write_keys(path, alice="scopes=infer", bob="scopes=infer")
    keyring = keyring_of(path)
    key = keys["alice"]
    assert "a key is needed" in refusal(keyring)
    assert "a key is needed" in refusal(keyring, "Basic dTpw")
    assert "names no key" in refusal(keyring, "Bearer")
    assert "names no key" in refusal(keyring, "Bearer ", key)
    for other in (
        new_key(),
        key[:-1],
        key + "x",
        key.upper(),
        key[3:],
        "\ufffd",
        "x" * 1_000_000,
        f"{key},{key}",
        "\0",
    ):
        assert refusal(keyring, f"Bearer {other}") == "the key is not valid"
        assert refusal(keyring, "", other) == "the key is not valid"


def test_two_different_keys_are_refused_even_if_both_are_valid(path: Path) -> None:
    keys = write_keys(path, alice="scopes=infer", bob="scopes=infer")
    said = refusal(keyring_of(path), f"Bearer {keys['alice']}", keys["bob"])
    assert "give different keys" in said


def test_a_key_expires(path: Path) -> None:
    key = write_keys(path, alice="scopes=infer expires=1970-01-02")["alice"]
    assert keyring_of(path, 86399.9).identify("", key).key.name == "alice"
    assert refusal(keyring_of(path, 86400.0), "", key) == "the key 'alice' has expired"


def test_a_scope_that_is_missing_is_named(path: Path) -> None:
    key = write_keys(path, alice="scopes=infer,metrics")["alice"]
    identity = keyring_of(path).identify("", key)
    check_scope(identity, "metrics")
    with pytest.raises(EkibenError, match="the key 'alice' lacks the scope 'admin'") as caught:
        check_scope(identity, "admin")
    assert caught.value.slug == "forbidden"


def test_keys_change_with_the_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    old = write_keys(path, alice="scopes=infer")["alice"]
    keyring = keyring_of(path)
    new = write_keys(path, alice="scopes=infer", bob="scopes=admin")
    keyring.reload()
    assert refusal(keyring, "", old) == "the key is not valid"
    assert {keyring.identify("", key).key.name for key in new.values()} == {"alice", "bob"}
    assert "2 keys are in use" in caplog.text


@pytest.mark.parametrize("content", ["", "alice scopes=infer\n", None])
def test_an_invalid_file_changes_nothing_and_is_logged_once(
    content: str | None, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = write_keys(path, alice="scopes=infer")["alice"]
    keyring = keyring_of(path)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for _ in range(3):
        keyring.reload()
    assert keyring.identify("", key).key.name == "alice"
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "the keys of before stay in use" in record.getMessage()
    again = write_keys(path, carol="scopes=infer")["carol"]
    keyring.reload()
    assert keyring.identify("", again).key.name == "carol"


def test_an_invalid_file_is_refused_at_the_start(path: Path) -> None:
    path.write_text("alice\n")
    with pytest.raises(ValueError, match=r"line 1: sha256= is missing"):
        keyring_of(path)


def test_a_file_that_everyone_can_read_is_a_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_keys(path, alice="scopes=infer")
    keyring_of(path)
    assert not caplog.records
    path.chmod(0o644)
    keyring_of(path)
    assert "can be read by every user" in caplog.text


def test_only_keys_with_limits_are_counted(path: Path) -> None:
    keys = write_keys(path, a="scopes=infer", b="scopes=infer rate=2", c="scopes=infer concurrency=1")
    keyring = keyring_of(path)
    free, *limited = [keyring.identify("", key).limit for key in keys.values()]
    assert free is None
    assert len({limit.row for limit in limited if limit is not None}) == 2


@pytest.mark.parametrize(
    ("limits", "policy"),
    [
        ({}, ""),
        ({"rate": 10.0, "burst": 10}, '"default";q=10;w=1'),
        ({"rate": 3.0, "burst": 10}, '"default";q=10;w=4'),  # rounded up to whole seconds
        (
            {"rate": 1.0, "burst": 60, "concurrency": 2},
            '"default";q=60;w=60, "concurrency";q=2;qu="concurrent-requests"',
        ),
    ],
)
def test_the_policy_is_a_structured_field(limits: dict[str, float], policy: str) -> None:
    assert describe_policy(Key(name="a", digest=b"", scopes=frozenset(), **limits)) == policy  # type: ignore[arg-type]
