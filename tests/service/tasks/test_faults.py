"""Errors of invalid requests point at JSON Pointers and describe the invalid values."""

from typing import Any

import pytest

from service.errors import Fault
from service.tasks.faults import MAX_FAULTS, describe_value, invalid_request, json_pointer, type_fault


def test_json_pointer_escapes_tilde_and_slash() -> None:
    assert json_pointer("a/b", 0, "m~n") == "/a~1b/0/m~0n"
    assert json_pointer() == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x" * 41, "a string of 41 characters"),
        ([], "an empty list"),
        ({"a": 1}, "an object"),
        (False, "false"),
        (2**128 - 1, str(2**128 - 1)),
        (b"", "a value of type bytes"),
    ],
)
def test_describe_value_is_short(value: Any, words: str) -> None:
    assert describe_value(value) == words


def test_long_whole_numbers_are_described_by_their_size() -> None:
    """Python converts no whole number of more than 4,300 digits to a text."""
    assert describe_value(-(10**5000)) == "a whole number of 16610 bits"


def test_message_of_an_invalid_request_is_its_first_fault() -> None:
    fault = Fault(pointer="/model", detail="this field is required")
    assert str(invalid_request([fault])) == "/model: this field is required"
    assert str(invalid_request([fault, fault])) == "/model: this field is required (and 1 more)"


def test_invalid_request_keeps_only_the_first_faults() -> None:
    faults = [Fault(pointer=f"/{i}", detail="wrong") for i in range(MAX_FAULTS + 1)]
    assert invalid_request(faults).faults == tuple(faults[:MAX_FAULTS])


def test_type_fault_names_pointer_expected_and_got() -> None:
    error = type_fault("/texts/1", "a text", 7)
    assert error.slug == "invalid-request"
    assert error.faults == (Fault(pointer="/texts/1", detail="expected a text, got 7"),)
