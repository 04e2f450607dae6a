"""Series from JSON lists and from arrays give the same rows."""

from typing import Any

import numpy as np
import pytest

from service.errors import EkibenError
from service.tasks.codecs.series import pad_rows, read_series

ROW = [[0.5, -1.0], [2.0, 3.25], [1e-9, 7.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_array_and_list_give_the_same_row(dtype: Any) -> None:
    array = np.abs(np.array(ROW)).astype(dtype)
    read = read_series(array, channels=2, max_steps=3, pointer="")
    assert read.dtype == np.float32
    assert np.array_equal(read, read_series(array.tolist(), channels=2, max_steps=3, pointer=""))


@pytest.mark.parametrize(
    ("row", "pointer", "detail"),
    [
        (np.zeros((4, 2)), "", "expected 1 to 3 steps, got 4"),
        (np.zeros((0, 2)), "", "expected 1 to 3 steps, got 0"),
        ([], "", "expected 1 to 3 steps, got 0"),
        (np.zeros((3, 1)), "", "expected numbers [steps, 2], got float64 [3, 1]"),
        (np.zeros(2), "", "expected numbers [steps, 2], got float64 [2]"),
        (np.array([["a", "b"]]), "", "expected numbers [steps, 2], got <U1 [1, 2]"),
        (np.array([[True, False]]), "", "got bool [1, 2]"),
        (np.array([[0, 1], [2, np.nan]]), "/1/1", "expected a number that is finite in float32, got NaN"),
        (np.array([[0, 1e300]]), "/0/1", "got 1e+300"),
        ("ab", "", "got 'ab'"),
    ],
)
def test_invalid_row_is_named(row: Any, pointer: str, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        read_series(row, channels=2, max_steps=3, pointer="/sequences/4")
    assert caught.value.faults[0].pointer == "/sequences/4" + pointer
    assert detail in caught.value.faults[0].detail


def test_pad_rows_pads_series_with_zeros_to_the_longest_row() -> None:
    series, lengths = pad_rows([np.ones((1, 2), np.float32), np.full((3, 2), 2, np.float32)], np.float32, 2)
    assert series.tolist() == [[[1, 1], [0, 0], [0, 0]], [[2, 2]] * 3]
    assert lengths.tolist() == [1, 3]


def test_pad_rows_pads_ids_with_zeros() -> None:
    ids, lengths = pad_rows([[1, 2, 3], [4]], np.int64)
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert lengths.tolist() == [3, 1]
    assert ids.dtype == lengths.dtype == np.int64
