"""Names that a stranger can point at this machine are refused."""

import pytest

from service.errors import EkibenError
from service.http.access.hosts import HostRule

LOCAL = [
    "localhost", "LOCALHOST:3000", "127.0.0.1", "127.0.0.1:3000", "127.8.9.1", "[::1]", "[::1]:3000", "localhost.:80",
    "app.localhost:3000", "ekiben", "ekiben:3000", "x", "", "localhost:",
]  # fmt: skip
FOREIGN = [
    "evil.example", "evil.example:3000", "EVIL.example.", "127.0.0.1.evil.example", "localhost.evil.example",
    "10.0.0.1", "[fe80::1]:3000", "notlocalhost.com", "127.0.0.1@evil.example", "0.0.0.0", "evil.example:3000:3000",
]  # fmt: skip


def is_allowed(rule: HostRule, host: str) -> bool:
    try:
        rule.check(host)
    except EkibenError as error:
        return (error.slug, repr(host) in error.detail) != ("misdirected", True)
    return True


@pytest.mark.parametrize("host", LOCAL)
def test_names_of_this_machine_are_allowed(host: str) -> None:
    assert is_allowed(HostRule(frozenset()), host)


@pytest.mark.parametrize("host", FOREIGN)
def test_names_that_others_control_are_refused(host: str) -> None:
    assert not is_allowed(HostRule(frozenset()), host)


def test_names_that_are_given_replace_those_of_this_machine() -> None:
    rule = HostRule(frozenset({"api.example", "::1"}))
    for host in ("api.example", "API.example:8443", "[::1]:3000"):
        assert is_allowed(rule, host)
    for host in ("localhost", "x.api.example", "api.example.evil.example", "example"):
        assert not is_allowed(rule, host)


def test_a_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(EkibenError) as caught:
        HostRule(frozenset()).check("a." * 50_000)
    assert len(caught.value.detail) < 300
