"""A document parsed with arrays is equivalent to one parsed with lists, and its faults are reported alike."""

from codecs import BOM_UTF8
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import EkibenError
from service.http.wire import oip_json
from service.http.wire.json_body import parse_json
from service.http.wire.oip_json import parse_tensors
from service.http.wire.oip_tensors import build_arrays, parse_inputs, pop_data
from tests.service.tasks.test_tensors import manifest_of

IMAGES = {"name": "images", "shape": [1, 4, 4], "datatype": "UINT8", "data": list(range(16))}
LATENTS = {"name": "latents", "shape": [1, 5], "datatype": "FP32", "data": [0, 1.5, -0.0, 1e-40, 3e38]}
LENGTHS = {"name": "lengths", "shape": [1], "datatype": "INT64", "data": [2]}
# A body that contains "true", so that lists are searched for booleans.
TRUE = b"true"
FAMILY = {"images": "image-classifier", "latents": "image-generator", "lengths": "series-classifier"}


@pytest.fixture(autouse=True)
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip_json, "MIN_BYTES", 0)


def outcome(document: Any) -> Any:
    """Return the arrays of a document, or the detail of the error that refuses it."""
    entries = document.get("inputs") if isinstance(document, dict) else document
    name = entries[0].get("name") if isinstance(entries, list) and entries and isinstance(entries[0], dict) else None
    manifest = manifest_of(FAMILY.get(name, "image-classifier"))
    try:
        data = pop_data(document)
        arrays = build_arrays(parse_inputs(entries, manifest), data, TRUE, len(TRUE))
    except EkibenError as error:
        return error.detail
    return {name: (value.dtype, value.shape, value.tobytes()) for name, value in arrays.items()}


def body(entry: dict[str, Any], **more: Any) -> bytes:
    return orjson.dumps({"inputs": [entry], **more})


@pytest.mark.parametrize("entry", [IMAGES, LATENTS, LENGTHS], ids=lambda entry: entry["name"])
def test_only_flat_lists_of_numbers_become_arrays(entry: dict[str, Any]) -> None:
    content = body(entry, id="7", parameters={"timeout": 5}, outputs=[{"name": "logits"}])
    parsed, expected = parse_tensors(content), parse_json(content)
    assert parsed is not None
    data = parsed["inputs"][0].pop("data")
    assert isinstance(data, np.ndarray)
    assert data.tolist() == expected["inputs"][0].pop("data")
    assert parsed == expected


def replace_number(entry: dict[str, Any], at: int, value: Any) -> dict[str, Any]:
    data = list(entry["data"])
    data[at] = value
    return {**entry, "data": data}


DEEP = b'{"parameters":' + b"[" * 1100 + b"]" * 1100 + b',"inputs":[]}'
EQUIVALENT = {
    "an image": body(IMAGES),
    "latents": body(LATENTS),
    "lengths": body(LENGTHS),
    "nested": body({**IMAGES, "data": np.arange(16).reshape(1, 4, 4).tolist()}),
    "nested otherwise": body({**IMAGES, "data": np.arange(16).reshape(1, 2, 8).tolist()}),
    "one entry nested": body(replace_number(IMAGES, 3, [3])),
    "a boolean": body(replace_number(IMAGES, 3, True)),
    "a fraction": body(replace_number(IMAGES, 3, 3.0)),
    "null": body(replace_number(IMAGES, 3, None)),
    "a string": body(replace_number(IMAGES, 3, "3")),
    "256": body(replace_number(IMAGES, 3, 256)),
    "below 0": body(replace_number(IMAGES, 3, -1)),
    "too few": body({**IMAGES, "data": [1, 2]}),
    "an empty list": body({**IMAGES, "data": []}),
    "no data": body({**IMAGES, "data": None}),
    "another datatype": body({**IMAGES, "datatype": "FP32"}),
    "an unknown datatype": body({**IMAGES, "datatype": "BF16"}),
    "a datatype that is not a string": body({**IMAGES, "datatype": []}),
    "an unknown field": body({**IMAGES, "size": [1]}),
    "too large for float32": body(replace_number(LATENTS, 0, 1e39)),
    "too large for 64 bits": body(LATENTS).replace(b"1.5", b"18446744073709551616"),
    "too large for int64": body(replace_number(LENGTHS, 0, 1 << 63)),
    "inputs that are not a list": b'{"inputs":5}',
    "a document that is not an object": b"[1]",
    "an entry that is not an object": b'{"inputs":[5]}',
    "brackets in a name": body({**LENGTHS, "name": "[["}),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", EQUIVALENT.values(), ids=EQUIVALENT)
def test_arrays_are_equivalent_to_lists(content: bytes) -> None:
    assert outcome(parse_tensors(content) or parse_json(content)) == outcome(parse_json(content))


@given(st.lists(st.one_of(st.integers(-2, 300), st.floats(), st.booleans(), st.none()), min_size=5, max_size=5))
def test_arrays_are_equivalent_to_lists_for_any_numbers(numbers: list[Any]) -> None:
    content = body({**LATENTS, "data": numbers})
    assert outcome(parse_tensors(content) or parse_json(content)) == outcome(parse_json(content))


@pytest.mark.parametrize(
    "content",
    [
        body(LENGTHS).replace(b'"data":', b'"data":[9],"data":'),
        body(LENGTHS).replace(b'"data":', b'"parameters":{"a":1,"a":2},"data":'),
        b'{"inputs":[],' + body(LENGTHS)[1:],
        b"", b"{", b'{"inputs":[', b"\xff", b'{"id":"\\ud800","inputs":[]}', b"NaN", BOM_UTF8 + body(IMAGES), DEEP,
    ],
)  # fmt: skip
def test_malformed_json_is_left_to_the_other_parser(content: bytes) -> None:
    assert parse_tensors(content) is None


def test_only_bodies_within_the_size_limits_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    content = body(LENGTHS)
    assert parse_tensors(content) is not None
    monkeypatch.setattr(oip_json, "MAX_BYTES", len(content) - 1)
    assert parse_tensors(content) is None
    monkeypatch.undo()
    assert len(content) < oip_json.MIN_BYTES
    assert parse_tensors(content) is None
