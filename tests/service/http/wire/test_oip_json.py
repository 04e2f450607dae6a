"""Whether a document is read with arrays or with lists, it means the same, and what is wrong with it is named alike."""

from codecs import BOM_UTF8
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import EkibenError
from service.http.wire import oip_json as json_tensors
from service.http.wire.json_body import read_json
from service.http.wire.oip_json import read_tensors
from service.http.wire.oip_tensors import arrays, read_inputs, take_data
from tests.service.tasks.test_tensors import manifest_of

IMAGES = {"name": "images", "shape": [1, 4, 4], "datatype": "UINT8", "data": list(range(16))}
LATENTS = {"name": "latents", "shape": [1, 5], "datatype": "FP32", "data": [0, 1.5, -0.0, 1e-40, 3e38]}
LENGTHS = {"name": "lengths", "shape": [1], "datatype": "INT64", "data": [2]}
TRUTH = b"true"  # for all that is said of it, a body may hold truth values
FAMILY = {"images": "image-classifier", "latents": "image-generator", "lengths": "series-classifier"}


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_tensors, "MIN_BYTES", 0)


def meaning(document: Any) -> Any:
    """The arrays of a document, or the words that refuse it."""
    entries = document.get("inputs") if isinstance(document, dict) else document
    named = entries[0].get("name") if isinstance(entries, list) and entries and isinstance(entries[0], dict) else None
    manifest = manifest_of(FAMILY.get(named, "image-classifier"))
    try:
        data = take_data(document)
        found = arrays(read_inputs(entries, manifest), data, TRUTH, len(TRUTH))
    except EkibenError as error:
        return error.detail
    return {name: (value.dtype, value.shape, value.tobytes()) for name, value in found.items()}


def body(entry: dict[str, Any], **more: Any) -> bytes:
    return orjson.dumps({"inputs": [entry], **more})


@pytest.mark.parametrize("entry", [IMAGES, LATENTS, LENGTHS], ids=lambda entry: entry["name"])
def test_flat_numbers_become_arrays_and_nothing_else_changes(entry: dict[str, Any]) -> None:
    content = body(entry, id="7", parameters={"timeout": 5}, outputs=[{"name": "logits"}])
    found, expected = read_tensors(content), read_json(content)
    assert found is not None
    data = found["inputs"][0].pop("data")
    assert isinstance(data, np.ndarray)
    assert data.tolist() == expected["inputs"][0].pop("data")
    assert found == expected


def changed(entry: dict[str, Any], at: int, value: Any) -> dict[str, Any]:
    data = list(entry["data"])
    data[at] = value
    return {**entry, "data": data}


DEEP = b'{"parameters":' + b"[" * 1100 + b"]" * 1100 + b',"inputs":[]}'
SAME = {
    "an image": body(IMAGES),
    "latents": body(LATENTS),
    "lengths": body(LENGTHS),
    "nested": body({**IMAGES, "data": np.arange(16).reshape(1, 4, 4).tolist()}),
    "nested otherwise": body({**IMAGES, "data": np.arange(16).reshape(1, 2, 8).tolist()}),
    "one entry nested": body(changed(IMAGES, 3, [3])),
    "a truth value": body(changed(IMAGES, 3, True)),
    "a fraction": body(changed(IMAGES, 3, 3.0)),
    "null": body(changed(IMAGES, 3, None)),
    "a string": body(changed(IMAGES, 3, "3")),
    "256": body(changed(IMAGES, 3, 256)),
    "below 0": body(changed(IMAGES, 3, -1)),
    "too few": body({**IMAGES, "data": [1, 2]}),
    "none": body({**IMAGES, "data": []}),
    "no data": body({**IMAGES, "data": None}),
    "another type": body({**IMAGES, "datatype": "FP32"}),
    "an unknown type": body({**IMAGES, "datatype": "BF16"}),
    "a type that is no word": body({**IMAGES, "datatype": []}),
    "an unknown field": body({**IMAGES, "size": [1]}),
    "too large for float32": body(changed(LATENTS, 0, 1e39)),
    "too large for 64 bits": body(LATENTS).replace(b"1.5", b"18446744073709551616"),
    "too large for int64": body(changed(LENGTHS, 0, 1 << 63)),
    "a key twice": body(LENGTHS).replace(b'"data":', b'"data":[9],"data":'),
    "inputs twice": b'{"inputs":[],' + body(LENGTHS)[1:],
    "no list": b'{"inputs":5}',
    "no object": b"[1]",
    "an entry that is no object": b'{"inputs":[5]}',
    "brackets in a name": body({**LENGTHS, "name": "[["}),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", SAME.values(), ids=SAME)
def test_it_means_what_the_lists_mean(content: bytes) -> None:
    assert meaning(read_tensors(content) or read_json(content)) == meaning(read_json(content))


@given(st.lists(st.one_of(st.integers(-2, 300), st.floats(), st.booleans(), st.none()), min_size=5, max_size=5))
def test_any_numbers_mean_what_the_lists_mean(numbers: list[Any]) -> None:
    content = body({**LATENTS, "data": numbers})
    assert meaning(read_tensors(content) or read_json(content)) == meaning(read_json(content))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"inputs":[', b"\xff", b'{"id":"\\ud800","inputs":[]}', b"NaN", BOM_UTF8 + body(IMAGES), DEEP],
)
def test_what_is_no_json_is_left_to_those_who_say_where(content: bytes) -> None:
    assert read_tensors(content) is None


def test_only_bodies_that_are_worth_it_are_read_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    content = body(LENGTHS)
    assert read_tensors(content) is not None
    monkeypatch.setattr(json_tensors, "MAX_BYTES", len(content) - 1)
    assert read_tensors(content) is None
    monkeypatch.undo()
    assert len(content) < json_tensors.MIN_BYTES
    assert read_tensors(content) is None
