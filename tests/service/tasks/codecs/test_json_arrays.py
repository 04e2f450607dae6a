"""Nested lists become arrays, or the error names the first invalid entry."""

import copy
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.errors import EkibenError
from service.manifest import FINITE, ValueRange
from service.tasks.codecs.json_arrays import parse_numbers, parse_pixels

IMAGE = [[0, 1], [254, 255]]
SERIES = [[0.5, -1.0], [2, 3.25], [1e-9, 7]]


def changed(document: Any, *path: int, to: Any) -> Any:
    copied = copy.deepcopy(document)
    place = copied
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return copied


@given(arrays(np.uint8, (3, 4, 3)))
def test_pixels_are_parsed_exactly(image: np.ndarray[Any, Any]) -> None:
    read = parse_pixels(image.tolist(), (3, 4, 3), "/images/0")
    assert read.dtype == np.uint8
    assert np.array_equal(read, image)


def test_whole_floats_are_accepted_as_pixels() -> None:
    assert parse_pixels([[0.0, 7.0], [1, 255.0]], (2, 2), "").tolist() == [[0, 7], [1, 255]]


@given(
    arrays(np.float32, st.tuples(st.integers(1, 9), st.just(2)), elements=st.floats(-(2.0**100), 2.0**100, width=32))
)
def test_numbers_are_parsed_exactly(series: np.ndarray[Any, Any]) -> None:
    read = parse_numbers(series.tolist(), 2, FINITE, "")
    assert read.dtype == np.float32
    assert np.array_equal(read, series)


@pytest.mark.parametrize(
    ("value", "pointer", "detail"),
    [
        (changed(IMAGE, 1, 0, to=256), "/1/0", "expected a pixel value of 0 to 255, got 256"),
        (changed(IMAGE, 0, 1, to=-1), "/0/1", "got -1"),
        (changed(IMAGE, 0, 1, to=10**30), "/0/1", "got 1000000000"),
        (changed(IMAGE, 0, 1, to=1.5), "/0/1", "expected a whole number of 0 to 255, got 1.5"),
        (changed(IMAGE, 0, 1, to=float("nan")), "/0/1", "got NaN"),
        (changed(IMAGE, 0, 1, to=True), "/0/1", "got true"),
        (changed(IMAGE, 0, 1, to="7"), "/0/1", "got '7'"),
        (changed(IMAGE, 0, 1, to=None), "/0/1", "got null"),
        (changed(IMAGE, 0, 1, to=[7]), "/0/1", "got a list of 1"),
        (changed(IMAGE, 1, to=[1]), "/1", "expected a list of 2 numbers (the shape is [2]), got a list of 1"),
        (changed(IMAGE, 1, to=[]), "/1", "got an empty list"),
        (changed(IMAGE, 1, to="ab"), "/1", "got 'ab'"),
        ([[1, 2]] * 3, "", "expected a list of 2 lists (the shape is [2, 2]), got a list of 3"),
    ],
)
def test_first_invalid_pixel_is_named(value: Any, pointer: str, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        parse_pixels(value, (2, 2), "/images/3")
    assert caught.value.faults[0].pointer == "/images/3" + pointer
    assert detail in caught.value.faults[0].detail


@pytest.mark.parametrize(
    ("value", "pointer", "detail"),
    [
        (changed(SERIES, 2, 1, to=float("nan")), "/2/1", "expected a number that is finite in float32, got NaN"),
        (changed(SERIES, 2, 1, to=float("inf")), "/2/1", "got Infinity"),
        (changed(SERIES, 2, 1, to=1e300), "/2/1", "got 1e+300"),
        (changed(SERIES, 2, 1, to=-3.5e38), "/2/1", "got -3.5e+38"),
        (changed(SERIES, 2, 1, to=10**400), "/2/1", "got a whole number of 1329 bits"),
        (changed(SERIES, 2, 1, to=True), "/2/1", "expected a number, got true"),
        (changed(SERIES, 2, 1, to="1.0"), "/2/1", "expected a number, got '1.0'"),
        (
            changed(SERIES, 1, to=[1.0, 2.0, 3.0]),
            "/1",
            "expected a list of 2 numbers (the shape is [2]), got a list of 3",
        ),
        (changed(SERIES, 1, to=1.0), "/1", "got 1.0"),
        ([], "", "expected a non-empty list of lists (the shape is [steps, 2]), got an empty list"),
        ({}, "", "got an object"),
    ],
)
def test_first_invalid_number_is_named(value: Any, pointer: str, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        parse_numbers(value, 2, FINITE, "/sequences/0")
    assert caught.value.faults[0].pointer == "/sequences/0" + pointer
    assert detail in caught.value.faults[0].detail


def test_numbers_outside_the_domain_are_named() -> None:
    allowed = ValueRange(low=-1.0, high=7.0)
    assert parse_numbers(SERIES, 2, allowed, "").tolist() == np.array(SERIES, np.float32).tolist()
    for number, got in ((7.5, "7.5"), (-1.001, "-1.001"), (3e38, "3e+38"), (8, "8")):
        with pytest.raises(EkibenError, match=f"expected a number of -1.0 to 7.0, got {re.escape(got)}") as caught:
            parse_numbers(changed(SERIES, 1, 0, to=number), 2, allowed, "/sequences/0")
        assert caught.value.faults[0].pointer == "/sequences/0/1/0"


def test_numbers_are_compared_in_float32() -> None:
    tenth = float(np.float32(0.1))
    for high in (0.1, tenth):
        allowed = ValueRange(low=0.0, high=high)
        assert parse_numbers([[0.1, tenth]], 2, allowed, "").max() == np.float32(0.1)
        with pytest.raises(EkibenError, match=r"got 0\.1000001"):
            parse_numbers([[0.1000001, 0.0]], 2, allowed, "")


@pytest.mark.parametrize("number", [1e-40, -1e-40, 5e-324, -0.0, 1.4e-45])
def test_denormal_numbers_are_kept(number: float) -> None:
    assert parse_numbers([[number]], 1, FINITE, "").item() == float(np.float32(number))
