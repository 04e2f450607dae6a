"""JSON is read as RFC 8259 has it; NaN and Infinity are pointed at."""

import gc
import sys

import pytest

from service.errors import EkibenError
from service.http.wire.json_body import MAX_SEARCHED_BYTES, read_json
from service.tasks.body import MAX_FAULTS


def test_a_document_is_read() -> None:
    assert read_json('{"model": "ö", "images": [[1, 2.5]]}'.encode()) == {"model": "ö", "images": [[1, 2.5]]}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "expected a JSON object, got an empty body"),
        (b" \n", "got an empty body"),
        (b'{"a": 1,\n "b" 2}', "at line 2, column 6"),
        (b'{"a": 1} x', "at line 1, column 10"),
        (b"[" * 5000, "at line 1"),
        (b'"\xff"', "UTF-8"),
        (b'["\\ud800"]', "at line 1"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(body: bytes, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        read_json(body)
    assert caught.value.slug == "malformed-json"
    assert detail in caught.value.detail


def test_numbers_that_are_none_are_pointed_at() -> None:
    with pytest.raises(EkibenError) as caught:
        read_json(b'{"sequences": [[1, NaN], [-Infinity]], "a/b": 1e999}')
    assert caught.value.slug == "invalid-request"
    assert [(fault.pointer, fault.detail) for fault in caught.value.faults] == [
        ("/sequences/0/1", "expected a finite number, got NaN"),
        ("/sequences/1/0", "expected a finite number, got -Infinity"),
        ("/a~1b", "expected a finite number, got Infinity"),
    ]


def test_of_many_only_the_first_are_pointed_at() -> None:
    with pytest.raises(EkibenError) as caught:
        read_json(b"[[" + b"NaN," * 20 + b"1],[NaN]]")
    assert [fault.pointer for fault in caught.value.faults] == [f"/0/{i}" for i in range(MAX_FAULTS)]


def test_how_deep_a_number_lies_costs_nothing() -> None:
    depth, width = 100, 1000
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"  # of a Python function, or the resumption of a generator

    body = b"[" * depth + b"0.5," * width + b"NaN" + b"]" * depth
    before = sys.getprofile()
    gc.disable()  # what it calls for others is not counted
    sys.setprofile(count)
    try:
        with pytest.raises(EkibenError) as caught:
            read_json(body)
    finally:
        sys.setprofile(before)
        gc.enable()
    assert caught.value.faults[0].pointer == "/0" * (depth - 1) + f"/{width}"
    assert calls < 2 * (depth + width)  # not depth * width


def test_a_huge_body_is_not_searched() -> None:
    with pytest.raises(EkibenError) as caught:
        read_json(b"[" + b"1," * (MAX_SEARCHED_BYTES // 2) + b"NaN]")
    assert caught.value.slug == "malformed-json"
