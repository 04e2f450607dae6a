"""Errors of a request body name the field, what was expected and what the body holds."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import Field

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.body import RequestBody, check_items, check_unused_fields, parse_request
from service.tasks.faults import MAX_FAULTS

UNKNOWN = "unknown field; the fields are model, count, price, fast, parts"


class Order(RequestBody):
    count: int = Field(default=1, ge=1, le=9)
    price: float = 1.0
    fast: bool = False
    parts: list[int] = Field(default=[])


@pytest.mark.parametrize(
    ("content", "pointer", "detail"),
    [
        ({}, "/model", "this field is required"),
        ({"model": 7}, "/model", "expected a valid string, got 7"),
        ({"model": "a", "count": "3"}, "/count", "expected a valid integer, got '3'"),
        ({"model": "a", "count": True}, "/count", "expected a valid integer, got true"),
        ({"model": "a", "count": 2.5}, "/count", "got 2.5"),
        ({"model": "a", "count": 0}, "/count", "expected greater than or equal to 1, got 0"),
        ({"model": None}, "/model", "this field is required"),
        ({"model": "a", "parts": [None]}, "/parts/0", "expected a valid integer, got null"),
        ({"model": "a", "price": True}, "/price", "expected a valid number, got true"),
        ({"model": "a", "price": float("nan")}, "/price", "expected a finite number, got NaN"),
        ({"model": "a", "price": float("-inf")}, "/price", "expected a finite number, got -Infinity"),
        ({"model": "a", "fast": 1}, "/fast", "expected a valid boolean, got 1"),
        ({"model": "a", "parts": [1, "x"]}, "/parts/1", "expected a valid integer, got 'x'"),
        (
            {"model": "a", "colour/~": 1},
            "/colour~1~0",
            "unknown field; the fields are model, count, price, fast, parts",
        ),
        ([1, 2], "", "expected a JSON object, got a list of 2"),
        (None, "", "expected a JSON object, got null"),
    ],
)
def test_parse_request_names_field_expected_and_got(content: Any, pointer: str, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        parse_request(Order, content)
    assert caught.value.slug == "invalid-request"
    [fault] = caught.value.faults
    assert fault.pointer == pointer
    assert detail in fault.detail


def test_every_invalid_field_has_its_own_fault() -> None:
    with pytest.raises(EkibenError, match="and 1 more") as caught:
        parse_request(Order, {"model": 1, "count": 10})
    assert [fault.pointer for fault in caught.value.faults] == ["/model", "/count"]


def test_many_faults_are_truncated_and_counted() -> None:
    with pytest.raises(EkibenError, match="and 99 more") as caught:
        parse_request(Order, {"model": "a", "parts": ["x"] * 100})
    assert len(caught.value.faults) == MAX_FAULTS


def test_many_unknown_fields_are_not_passed_to_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"model": "a"} | {f"x/{i}": i for i in range(1000)}
    with monkeypatch.context() as patch:
        patch.setattr(Order, "model_validate", None)
        with pytest.raises(EkibenError) as caught:
            parse_request(Order, fields)
    assert caught.value.detail == f"/x~10: {UNKNOWN} (and 999 more)"
    assert [fault.pointer for fault in caught.value.faults] == [f"/x~1{i}" for i in range(MAX_FAULTS)]


@pytest.mark.parametrize("count", [MAX_FAULTS - 1, MAX_FAULTS, MAX_FAULTS + 40])
def test_few_and_many_unknown_fields_have_the_same_message(count: int) -> None:
    full = {"model": "a", "count": 1, "price": 1.0, "fast": True, "parts": []}
    with pytest.raises(EkibenError) as caught:
        parse_request(Order, full | {f"x{i}": i for i in range(count)})
    assert caught.value.detail == f"/x0: {UNKNOWN} (and {count - 1} more)"
    assert {fault.detail for fault in caught.value.faults} == {UNKNOWN}
    assert [fault.pointer for fault in caught.value.faults] == [f"/x{i}" for i in range(min(count, MAX_FAULTS))]


def test_integers_are_accepted_as_floats() -> None:
    assert parse_request(Order, {"model": "a", "price": 2}).price == 2


@pytest.mark.parametrize("count", [0, 9])
def test_check_items_refuses_too_few_and_too_many_items(count: int, models: dict[str, Model]) -> None:
    with pytest.raises(EkibenError, match="/texts: expected 1 to 8 items"):
        check_items(["a"] * count, models["text-classifier"].manifest, "/texts")


@pytest.mark.parametrize("count", [1, 8])
def test_check_items_accepts_1_to_max_items(count: int, models: dict[str, Model]) -> None:
    check_items(["a"] * count, models["text-classifier"].manifest, "/texts")


def test_check_unused_fields_refuses_fields_that_the_model_does_not_use() -> None:
    manifest: Any = SimpleNamespace(name="m")
    with pytest.raises(EkibenError, match="/states: not a field for m, which takes `texts`"):
        check_unused_fields(["sequences", "states"], {"model", "states"}, manifest, "`texts`")
    check_unused_fields(["sequences"], {"model", "states"}, manifest, "`texts`")


def test_a_field_that_is_null_counts_as_absent() -> None:
    fields = {"count": None, "price": None, "fast": None, "parts": None, "size": None}
    assert parse_request(Order, {"model": "a", **fields}) == parse_request(Order, {"model": "a"})
