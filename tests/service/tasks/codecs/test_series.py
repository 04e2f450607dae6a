"""Series from JSON lists and from arrays give the same rows."""

from typing import Any

import numpy as np
import pytest

from service.errors import EkibenError
from service.tasks.codecs.series import pad_rows, read_series
from tests.service.engine.fakes import manifest

MANIFEST = manifest("series-classifier", limits={"max_items": 8, "max_steps": 3})
ROW = [[0.5, -1.0], [2.0, 3.25], [1e-9, 7.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_array_and_list_give_the_same_row(dtype: Any) -> None:
    array = np.abs(np.array(ROW)).astype(dtype)
    read = read_series(array, MANIFEST, channels=2, pointer="")
    assert read.dtype == np.float32
    assert np.array_equal(read, read_series(array.tolist(), MANIFEST, channels=2, pointer=""))


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
        read_series(row, MANIFEST, channels=2, pointer="/sequences/4")
    assert caught.value.faults[0].pointer == "/sequences/4" + pointer
    assert detail in caught.value.faults[0].detail


@pytest.mark.parametrize("as_array", [False, True])
def test_numbers_outside_the_domain_are_named(as_array: bool) -> None:
    ranged = manifest("series-classifier", domain={"series": {"low": -1.0, "high": 7.0}})

    def read(row: list[list[float]]) -> Any:
        return read_series(np.array(row) if as_array else row, ranged, channels=2, pointer="/sequences/4")

    assert read(ROW).tolist() == np.array(ROW, np.float32).tolist()
    for number, got in ((7.5, "7.5"), (-3e38, "-3e+38"), (np.nan, "NaN"), (np.inf, "Infinity"), (1e300, "1e+300")):
        with pytest.raises(EkibenError) as caught:
            read([*ROW[:2], [0.0, number]])
        assert caught.value.faults[0].pointer == "/sequences/4/2/1"
        assert caught.value.faults[0].detail == f"expected a number of -1.0 to 7.0, got {got}"


def test_a_series_without_steps_is_refused() -> None:
    limited = manifest("series-classifier")
    for row in (np.zeros((0, 2)), []):
        with pytest.raises(EkibenError, match="expected"):
            read_series(row, limited, channels=2, pointer="")


def test_pad_rows_pads_series_with_zeros_to_the_longest_row() -> None:
    series, lengths = pad_rows([np.ones((1, 2), np.float32), np.full((3, 2), 2, np.float32)], np.float32, 2)
    assert series.tolist() == [[[1, 1], [0, 0], [0, 0]], [[2, 2]] * 3]
    assert lengths.tolist() == [1, 3]


def test_pad_rows_pads_ids_with_zeros() -> None:
    ids, lengths = pad_rows([[1, 2, 3], [4]], np.int64)
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert lengths.tolist() == [3, 1]
    assert ids.dtype == lengths.dtype == np.int64
