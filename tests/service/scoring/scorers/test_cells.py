"""Columns of every layout become items of the task code."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.errors import EkibenError, Fault
from service.scoring.scorers.cells import (
    pixel_block,
    pixels_from_bytes,
    reject_reason,
    series_arrays,
    split_faults,
    to_python,
    try_read,
    unwrap,
)
from service.tasks.faults import type_fault
from tests.service.scoring.inputs import arrow_images, arrow_series, images, png, series

IMAGES = images(6)
FLAT = [image.reshape(-1).tolist() for image in IMAGES]
BYTES = [image.tobytes() for image in IMAGES]
TENSOR = pa.FixedShapeTensorArray.from_numpy_ndarray(IMAGES)


@pytest.mark.parametrize(
    "column",
    [
        IMAGES,
        IMAGES.reshape(6, 16),
        arrow_images(IMAGES),
        arrow_images(images(9))[0:6],
        pa.array(BYTES, pa.binary()),
        pa.array(BYTES, pa.large_binary()),
        pa.array([b"", *BYTES], pa.binary())[1:],
        pa.array(FLAT, pa.list_(pa.uint8())),
        pa.array(FLAT, pa.list_(pa.uint8(), 16)),
        pa.array(IMAGES.tolist(), pa.list_(pa.list_(pa.uint8()))),
        pa.array([FLAT[0], *FLAT], pa.large_list(pa.uint8()))[1:],
        TENSOR,
    ],
    ids=str,
)
def test_column_of_pixels_is_one_block(column: Any) -> None:
    block = pixel_block(unwrap(column), (4, 4))
    assert block is not None
    assert np.array_equal(block, IMAGES)


@pytest.mark.parametrize(
    "column",
    [
        IMAGES.astype(np.int64),
        IMAGES.reshape(6, 2, 8),
        pa.array([*BYTES[:5], None], pa.binary()),
        pa.array([*BYTES[:5], BYTES[5][:-1]], pa.binary()),
        pa.array([png(IMAGES[0])] * 6, pa.binary()),
        pa.array([b"\x89PNG\r\n\x1a\n" + bytes(8)] * 6, pa.binary()),
        pa.array([image.reshape(2, 8).tolist() for image in IMAGES], pa.list_(pa.list_(pa.uint8()))),
        pa.array([*FLAT[:5], FLAT[5][:-1]], pa.list_(pa.uint8())),
        pa.array([*FLAT[:5], [None, *FLAT[5][1:]]], pa.list_(pa.uint8())),
        pa.array(FLAT, pa.list_(pa.int32())),
        pa.array(["x"] * 6),
        pa.array([], pa.binary()),
        ["x"] * 6,
    ],
    ids=str,
)
def test_other_layouts_have_no_pixel_block(column: Any) -> None:
    assert pixel_block(unwrap(column), (4, 4)) is None


def test_unwrap_removes_structs_and_dictionaries() -> None:
    encoded_images = [{"bytes": b"abc", "path": "x"}, None]
    assert to_python(unwrap(pa.array(encoded_images))) == [b"abc", None]
    assert to_python(unwrap(pa.array(["a", "b"]).dictionary_encode())) == ["a", "b"]


def test_nested_list_column_becomes_arrays() -> None:
    expected = series(7)
    for column in (arrow_series(expected), arrow_series(series(9, seed=1) + expected)[9:]):
        rows = series_arrays(column, 2)
        assert all(isinstance(row, np.ndarray) for row in rows)
        assert all(np.array_equal(row, expected_series) for row, expected_series in zip(rows, expected, strict=True))


@pytest.mark.parametrize("bad", [None, [[1.0, None]], [[1.0]], [None]])
def test_series_with_nulls_become_python_values(bad: Any) -> None:
    column = pa.array([[[1.0, 2.0]], bad], pa.list_(pa.list_(pa.float32())))
    assert series_arrays(column, 2) == [[[1.0, 2.0]], bad]


def test_bytes_are_pixels_unless_they_are_png_or_jpeg() -> None:
    assert np.array_equal(pixels_from_bytes(BYTES[0], (4, 4)), IMAGES[0])  # type: ignore[arg-type]
    assert pixels_from_bytes(b"\xff\xd8\xff" + bytes(11) + b"\xff\xd9", (4, 4)) is None
    assert pixels_from_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8), (4, 4)) is None
    assert pixels_from_bytes(bytes(15), (4, 4)) is None
    assert pixels_from_bytes("0" * 16, (4, 4)) is None


def test_split_faults_separates_values_from_errors() -> None:
    def read(item: int) -> int:
        if item % 2:
            raise type_fault("/3", "an even number", item)
        return item

    found = [try_read(read, item) for item in (0, 1, 2, 3)]
    values, indexes, faults = split_faults(found, {2: "unreadable"}, "n")
    assert (values, indexes) == ([0], [0])
    assert faults == {
        1: "n/3: expected an even number, got 1",
        2: "unreadable",
        3: "n/3: expected an even number, got 3",
    }


def test_split_faults_removes_the_row_index_from_pointers() -> None:
    found = [type_fault("/0", "a text", 1), type_fault("/1/2", "a text", 1)]
    assert split_faults(found, {}, "text", numbered=True)[2] == {
        0: "text: expected a text, got 1",
        1: "text/2: expected a text, got 1",
    }


def test_reject_reason_names_column_and_pointer() -> None:
    error = EkibenError("invalid-request", "no", (Fault(pointer="/4/1", detail="too big"),))
    assert reject_reason(error, "image") == "image/4/1: too big"
    assert reject_reason(error, "image", "/4") == "image/1: too big"
    assert reject_reason(EkibenError("internal", "no"), "image") == "image: no"
