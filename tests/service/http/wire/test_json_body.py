"""JSON is parsed as RFC 8259 defines it; faults point at NaN and Infinity."""

import gc
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import EkibenError
from service.http.wire.json_body import MAX_SEARCHED_BYTES, parse_json
from service.tasks.faults import MAX_FAULTS


def test_a_document_is_parsed() -> None:
    assert parse_json('{"model": "ö", "images": [[1, 2.5]]}'.encode()) == {"model": "ö", "images": [[1, 2.5]]}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "expected a JSON object, got an empty body"),
        (b" \n", "got an empty body"),
        (b'{"a": 1,\n "b" 2}', "at line 2, column 6"),
        (b'{"a": 1} x', "at line 1, column 10"),
        (b"[" * 5000, "at line 1"),
        (b'{"a": "good \xff"}', "got a body that is not UTF-8: invalid start byte at byte 12"),
        (b'["\\ud800"]', "at line 1"),
    ],
)
def test_malformed_json_is_refused_with_its_position(body: bytes, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        parse_json(body)
    assert caught.value.slug == "malformed-json"
    assert detail in caught.value.detail


def test_faults_point_at_non_finite_numbers() -> None:
    with pytest.raises(EkibenError) as caught:
        parse_json(b'{"sequences": [[1, NaN], [-Infinity]], "a/b": 1e999}')
    assert caught.value.slug == "invalid-request"
    assert [(fault.pointer, fault.detail) for fault in caught.value.faults] == [
        ("/sequences/0/1", "expected a finite number, got NaN"),
        ("/sequences/1/0", "expected a finite number, got -Infinity"),
        ("/a~1b", "expected a finite number, got Infinity"),
    ]


@pytest.mark.parametrize("number", [b"1" + b"0" * 400, b"-1" + b"0" * 309])
def test_faults_point_at_whole_numbers_beyond_float64(number: bytes) -> None:
    with pytest.raises(EkibenError) as caught:
        parse_json(b'{"sequences": [[1, ' + number + b"]]}")
    assert caught.value.slug == "invalid-request"
    (fault,) = caught.value.faults
    assert fault.pointer == "/sequences/0/1"
    assert fault.detail.startswith("expected a finite number, got a whole number of ")


def test_the_number_of_faults_is_limited() -> None:
    with pytest.raises(EkibenError) as caught:
        parse_json(b"[[" + b"NaN," * 20 + b"1],[NaN]]")
    assert [fault.pointer for fault in caught.value.faults] == [f"/0/{i}" for i in range(MAX_FAULTS)]


def test_the_cost_of_a_fault_does_not_grow_with_its_depth() -> None:
    depth, width = 100, 1000
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        # A call of a Python function, or the resumption of a generator.
        calls += event == "call"

    body = b"[" * depth + b"0.5," * width + b"NaN" + b"]" * depth
    previous = sys.getprofile()
    # Finalisers that the collector calls must not be counted.
    gc.disable()
    sys.setprofile(count)
    try:
        with pytest.raises(EkibenError) as caught:
            parse_json(body)
    finally:
        sys.setprofile(previous)
        gc.enable()
    assert caught.value.faults[0].pointer == "/0" * (depth - 1) + f"/{width}"
    # Far below depth * width.
    assert calls < 2 * (depth + width)


def test_a_body_above_1_mebibyte_is_not_searched() -> None:
    with pytest.raises(EkibenError) as caught:
        parse_json(b"[" + b"1," * (1 << 19) + b"NaN]")
    assert caught.value.slug == "malformed-json"
    with pytest.raises(EkibenError) as caught:
        parse_json(b"[" + b"1," * ((1 << 19) - 4) + b"NaN]")
    assert caught.value.slug == "invalid-request"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a": 1, "a": 1}', "/a"),
        (b'{"a": 1, "a"\t:\n1}', "/a"),
        (b'{"x": [{"b:": 1}, {"b:": 1, "c": ":", "b:": 2}]}', "/x/1/b:"),
        (b'{"a": "\\u003a", "b": 1, "b": 2}', "/b"),
        (b'{"a": "\\u003A", "\\u0061": 2}', "/a"),
        (b'{"a": [1, 2, {"c": {"d": 1, "d": {}}}]}', "/a/2/c/d"),
    ],
)
def test_a_name_that_an_object_has_twice_is_refused(body: bytes, pointer: str) -> None:
    with pytest.raises(EkibenError, match="two members of this name") as caught:
        parse_json(body)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('b:"{}\\', max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab:"{\\', max_size=2), inner, max_size=3),
)


@given(DOCUMENTS, st.booleans())
def test_a_document_with_unique_names_is_accepted(document: Any, escapes: bool) -> None:
    body = json.dumps(document, indent=1 if escapes else None)
    assert parse_json((body.replace("b", "\\u0062") if escapes else body).encode()) == document


def test_a_large_body_that_cannot_be_searched_is_refused() -> None:
    filler = '"' + "x" * MAX_SEARCHED_BYTES + '"'
    assert parse_json(f'{{"a": {filler}, "b": ":"}}'.encode())["b"] == ":"
    with pytest.raises(EkibenError, match="two members of one name"):
        parse_json(f'{{"a": {filler}, "a": 1}}'.encode())
