"""Input tensors become arrays of the declared type and shape; invalid ones are refused with a pointer."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import EkibenError
from service.http.wire.oip_tensors import build_arrays, parse_inputs, pop_data
from tests.service.bundles import FAMILIES, example_inputs
from tests.service.tasks.test_tensors import manifest_of

# The names of the protocol.
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}


def entry(name: str, value: Any, **changes: Any) -> dict[str, Any]:
    declared = {"name": name, "shape": list(value.shape), "datatype": DATATYPES[value.dtype.name]}
    return {**declared, "data": value.ravel().tolist(), **changes}


def parse(family: str, entries: Any, body: bytes = b"") -> Any:
    """Return the arrays and the pointer of each tensor; `body` follows the JSON.

    The JSON text is only searched for booleans, so "true" stands for all of it.
    """
    data = pop_data({"inputs": entries})
    head = b"true" if any(True in numbers for numbers in data if type(numbers) is list) else b""
    tensors = parse_inputs(entries, manifest_of(family))
    return build_arrays(tensors, data, head + body, len(head)), {tensor.name: tensor.where for tensor in tensors}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["flat", "nested", "bytes"])
def test_json_and_bytes_give_the_same_arrays(family: str, form: str) -> None:
    inputs = example_inputs(family)
    body = b""
    entries = []
    for name, value in inputs.items():
        if form == "bytes":
            binary = entry(name, value, parameters={"binary_data_size": value.nbytes})
            del binary["data"]
            body += value.tobytes()
            entries.append(binary)
        else:
            entries.append(entry(name, value, **({"data": value.tolist()} if form == "nested" else {})))
    tensors, pointers = parse(family, entries, body)
    assert pointers == {name: f"/inputs/{i}" for i, name in enumerate(inputs)}
    for name, value in inputs.items():
        assert tensors[name].dtype == value.dtype
        assert tensors[name].flags.c_contiguous
        np.testing.assert_array_equal(tensors[name], value)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=5, max_size=5))
def test_float32_values_are_exact(numbers: list[float]) -> None:
    value = np.array([numbers], np.float32)
    tensors, _ = parse("image-generator", [entry("latents", value)])
    assert tensors["latents"].tobytes() == value.tobytes()


IMAGES = np.zeros((1, 4, 4), np.uint8)
LATENTS = np.zeros((1, 5), np.float32)
SIZE = {"binary_data_size": 16}
DIGITS, NOISE = "image-classifier", "image-generator"
INVALID: dict[str, tuple[str, Any, bytes, str, str]] = {
    "not a list": (DIGITS, {}, b"", "/inputs", "a list of tensors"),
    "no tensors": (DIGITS, [], b"", "/inputs", "a list of tensors"),
    "not an object": (DIGITS, [3], b"", "/inputs/0", "an object with name"),
    "a field": (
        DIGITS, [entry("images", IMAGES, **{"d/z~": []})], b"",
        "/inputs/0/d~1z~0", "not supported here; supported: data, datatype, name",
    ),
    "name": (DIGITS, [entry("image", IMAGES)], b"", "/inputs/0/name", "expected one of images, got 'image'"),
    "twice": (DIGITS, [entry("images", IMAGES)] * 2, b"", "/inputs/1/name", "already"),
    "missing": ("series-classifier", [entry("lengths", np.ones(1, np.int64))], b"", "/inputs", "missing: series"),
    "datatype": (
        DIGITS, [entry("images", IMAGES, datatype="INT64")], b"", "/inputs/0/datatype", "UINT8, got 'INT64'",
    ),
    "shape": (DIGITS, [entry("images", IMAGES, shape=[1, 16])], b"", "/inputs/0/shape", r"\[batch, 4, 4\]"),
    "a negative size": (
        DIGITS, [entry("images", IMAGES, shape=[-1, 4, 4])], b"", "/inputs/0/shape/0", "a size of 0 to .*, got -1",
    ),
    "a size past 31 bits": (
        DIGITS, [entry("images", IMAGES, shape=[2**31, 4, 4])], b"",
        "/inputs/0/shape/0", "a size of 0 to 2147483647, got 2147483648",
    ),
    "a size of text": (
        DIGITS, [entry("images", IMAGES, shape=[1, 4, "4"])], b"", "/inputs/0/shape/2", "a size of 0 to .*, got '4'",
    ),
    "a huge size": (
        DIGITS, [entry("images", IMAGES, shape=[2**30, 4, 4])], b"", "/inputs/0/data", "17179869184 numbers",
    ),
    "too few": (DIGITS, [entry("images", IMAGES, data=[0] * 15)], b"", "/inputs/0/data", "16 numbers"),
    "no data": (DIGITS, [entry("images", IMAGES, data=None)], b"", "/inputs/0/data", "list of numbers"),
    "ragged": (
        DIGITS, [entry("images", IMAGES, data=[[[0] * 3, [0] * 5, [0] * 4, [0] * 4]])], b"",
        "/inputs/0/data", "nested as shape",
    ),
    "half nested": (
        DIGITS, [entry("images", IMAGES, data=[[0] * 4] * 4)], b"", "/inputs/0/data", "nested as shape",
    ),
    "a text inside": (
        DIGITS, [entry("images", IMAGES, data=[["0000"] * 4])], b"", "/inputs/0/data", "nested as shape",
    ),
    "256": (DIGITS, [entry("images", IMAGES, data=[256] + [0] * 15)], b"", "/inputs/0/data", "got 256"),
    "a fraction": (
        DIGITS, [entry("images", IMAGES, data=[0] * 15 + [0.5])], b"", "/inputs/0/data", r"entry 15",
    ),
    "a text": (NOISE, [entry("latents", LATENTS, data=["1"] * 5)], b"", "/inputs/0/data", "a number, got '1'"),
    "null": (NOISE, [entry("latents", LATENTS, data=[0, None, 0, 0, 0])], b"", "/inputs/0/data", "got null"),
    "past 64 bits": (
        "text-classifier",
        [entry("lengths", np.ones(1, np.int64), data=[2**63]), entry("ids", np.ones((1, 1), np.int64))], b"",
        "/inputs/0/data", "got 9223372036854775808",
    ),
    "parameters": (
        DIGITS, [entry("images", IMAGES, parameters=[])], b"", "/inputs/0/parameters", "an object",
    ),
    "shared memory": (
        DIGITS, [entry("images", IMAGES, parameters={"shared_memory_region": "x"})], b"",
        "/inputs/0/parameters/shared_memory_region", "not supported",
    ),
    "an odd parameter": (
        DIGITS, [entry("images", IMAGES, parameters={"a/b": 1})], b"", "/inputs/0/parameters/a~1b", "not supported",
    ),
    "data given twice": (
        DIGITS, [{**entry("images", IMAGES), "parameters": SIZE}], bytes(16),
        "/inputs/0/data", "given twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_input_is_refused_with_a_pointer(name: str) -> None:
    family, entries, body, pointer, message = INVALID[name]
    with pytest.raises(EkibenError, match=message) as caught:
        parse(family, entries, body)
    assert caught.value.slug == "invalid-request"
    assert caught.value.faults[0].pointer == pointer


def binary_entry(size: int | None) -> dict[str, Any]:
    return {"name": "images", "shape": [1, 4, 4], "datatype": "UINT8", "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    ("size", "body", "message"),
    [
        (15, bytes(15), r"expected 16 bytes for shape \[1, 4, 4\], got 15"),
        (-1, bytes(16), r"expected 16 bytes for shape \[1, 4, 4\], got -1"),
        (True, bytes(16), r"expected 16 bytes for shape \[1, 4, 4\], got true"),
        (None, bytes(16), "expected a list of numbers, got null"),  # null counts as absent
        (16, bytes(15), "expected 16 bytes of JSON and tensors, got 15"),
        (16, bytes(17), "expected 16 bytes of JSON and tensors, got 17"),
    ],
)
def test_the_number_of_bytes_is_checked(size: int | None, body: bytes, message: str) -> None:
    with pytest.raises(EkibenError, match=message):
        parse("image-classifier", [binary_entry(size)], body)


@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_not_a_number(value: bool) -> None:
    tensors, head = parse_inputs([entry("images", IMAGES)], manifest_of(DIGITS)), str(value).lower()
    with pytest.raises(EkibenError, match=rf"a whole number of 0 to 255, got {head} \(entry 0\)"):
        build_arrays(tensors, [[value] + [0] * 15], head.encode(), len(head))


def test_numbers_of_64_bits_become_pixels_if_they_fit() -> None:
    tensors, _ = parse(DIGITS, [entry("images", IMAGES, data=np.arange(240, 256, dtype=np.uint64))])
    assert tensors["images"].dtype == np.uint8
    assert tensors["images"].ravel().tolist() == list(range(240, 256))
    with pytest.raises(EkibenError, match=r"a whole number of 0 to 255, got 256 \(entry 15\)"):
        parse(DIGITS, [entry("images", IMAGES, data=np.arange(241, 257, dtype=np.uint64))])


def test_an_empty_past_becomes_an_empty_array() -> None:
    inputs = example_inputs("language-model", batch=1)
    inputs["past_lengths"] = np.zeros(1, np.int64)
    for name in inputs:
        if name.startswith(("past_key", "past_value")):
            inputs[name] = np.zeros((1, 2, 0, 4), np.float32)
    for data in ({}, {"data": [[[], []]]}):
        entries = [entry(name, value, **(data if value.size == 0 else {})) for name, value in inputs.items()]
        tensors, _ = parse("language-model", entries)
        assert tensors["past_key_0"].shape == (1, 2, 0, 4)
