"""Parameters that change nothing are accepted; any other is honoured or refused, at its place."""

from typing import Any

import pytest

from service.errors import EkibenError
from service.http.wire.oip_parameters import NEUTRAL_OF_REQUEST, parse_object, parse_parameters

CHANGE_NOTHING: list[dict[str, Any]] = [
    {},
    {"priority": 0},
    {"sequence_id": 0, "sequence_start": False, "sequence_end": False},
    {"sequence_id": ""},
    {"content_type": "np"},
    {"content_type": "str", "headers": {"x-request-id": "7"}},
    {"priority": None, "sequence_id": None, "content_type": None, "headers": None, "timeout": None},
]
CHANGE_SOMETHING: list[tuple[str, Any, str]] = [
    ("priority", 1, "expected 0, because requests are computed in the order of their deadlines; got 1"),
    ("priority", False, "expected 0, .* got false"),
    ("priority", 0.0, r"expected 0, .* got 0\.0"),
    ("sequence_id", 7, "expected 0 or '', because a request does not depend on earlier ones; got 7"),
    ("sequence_id", "abc", "got 'abc'"),
    ("sequence_start", True, "expected false, .* got true"),
    ("sequence_end", 1, "expected false, .* got 1"),
    ("content_type", "base64", "expected 'np' or 'pd' or 'str', because tensors are read as they are; got 'base64'"),
    ("content_type", ["np"], "got a list of 1"),
    ("headers", "x", "expected an object, got 'x'"),
    ("triton_x", 1, "not supported here; supported: content_type, headers, priority, "),
]


@pytest.mark.parametrize("parameters", CHANGE_NOTHING, ids=str)
def test_values_that_change_nothing_are_accepted(parameters: dict[str, Any]) -> None:
    assert parse_parameters({"parameters": parameters}, {"timeout"}, "", NEUTRAL_OF_REQUEST) == {}


@pytest.mark.parametrize(("name", "value", "message"), CHANGE_SOMETHING)
def test_values_that_would_change_something_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(EkibenError, match=f"/x/parameters/{name}: .*{message}") as caught:
        parse_parameters({"parameters": {name: value}}, {"timeout"}, "/x", NEUTRAL_OF_REQUEST)
    assert [fault.pointer for fault in caught.value.faults] == [f"/x/parameters/{name}"]


def test_honoured_parameters_are_returned() -> None:
    parameters = {"timeout": 5, "priority": 0}
    assert parse_parameters({"parameters": parameters}, {"timeout"}, "", NEUTRAL_OF_REQUEST) == {"timeout": 5}
    assert parse_parameters({"parameters": None}, {"timeout"}, "") == parse_parameters({}, set(), "") == {}


def test_a_tensor_has_fewer_neutral_parameters() -> None:
    assert parse_parameters({"parameters": {"content_type": "np"}}, set(), "/inputs/0") == {}
    with pytest.raises(EkibenError, match="/inputs/0/parameters/priority: not supported here"):
        parse_parameters({"parameters": {"priority": 0}}, set(), "/inputs/0")


def test_shared_memory_is_named() -> None:
    with pytest.raises(EkibenError, match="shared memory is not supported"):
        parse_parameters({"parameters": {"shared_memory_region": "x"}}, set(), "/inputs/0")


def test_an_object_has_only_supported_fields() -> None:
    assert parse_object({"a": 1}, {"a", "b"}, "/x") == {"a": 1}
    with pytest.raises(EkibenError, match="/x: expected an object, got a list of 1"):
        parse_object([1], {"a"}, "/x")
    with pytest.raises(EkibenError, match="/x/b: not supported here; supported: a"):
        parse_object({"a": 1, "b": 2}, {"a"}, "/x")
