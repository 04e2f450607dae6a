"""Nested lists become tensors of every dtype, or the error points at the first invalid list or entry."""

from typing import Any

import numpy as np
import pytest

from service.contract.tensors import Dtype
from service.errors import EkibenError
from service.tasks.codecs.json_tensors import parse_tensor

MAX = {name: np.iinfo(name).max for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")}
MIN = {name: np.iinfo(name).min for name in MAX}


@pytest.mark.parametrize("dtype", MAX)
def test_whole_numbers_are_exact_up_to_the_limits_of_their_dtype(dtype: Dtype) -> None:
    tensor = parse_tensor([[MIN[dtype], MAX[dtype]], [0, 1]], 2, dtype, "")
    assert tensor.dtype == dtype
    assert tensor.tolist() == [[MIN[dtype], MAX[dtype]], [0, 1]]
    for value in (MAX[dtype] + 1, MIN[dtype] - 1, 1.0, True, "1", None, 10**400):
        with pytest.raises(EkibenError, match=f"^/t/1/0: expected a whole number of {MIN[dtype]} to {MAX[dtype]}"):
            parse_tensor([[0, 1], [value, 2]], 2, dtype, "/t")


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 65504.0), ("float32", 3.4028234663852886e38)])
def test_numbers_are_finite_in_their_dtype(dtype: Dtype, limit: float) -> None:
    tensor = parse_tensor([limit, -limit, 1, 0.1], 1, dtype, "")
    assert tensor.dtype == dtype
    assert tensor.tolist() == [limit, -limit, 1, float(np.dtype(dtype).type(0.1))]
    for value in (limit * 1.01, True, "1", None, 10**400, float("nan"), [1]):
        with pytest.raises(EkibenError, match=f"^/t/1: expected a number that is finite in {dtype}"):
            parse_tensor([1, value], 1, dtype, "/t")


def test_float64_holds_every_number_of_json() -> None:
    tensor = parse_tensor([1e308, 5e-324, 2**53 + 1], 1, "float64", "")
    assert tensor.tolist() == [1e308, 5e-324, float(2**53)]


def test_bool_is_true_and_false_only() -> None:
    tensor = parse_tensor([[True], [False]], 2, "bool", "")
    assert (tensor.dtype, tensor.tolist()) == (np.bool_, [[True], [False]])
    with pytest.raises(EkibenError, match=r"^/1/0: expected true or false, got 1$"):
        parse_tensor([[True], [1]], 2, "bool", "")


def test_strings_are_python_objects() -> None:
    tensor = parse_tensor([["a", "日本"], ["", "b"]], 2, "string", "")
    assert (tensor.dtype, tensor.tolist()) == (np.dtype(object), [["a", "日本"], ["", "b"]])
    with pytest.raises(EkibenError, match=r"^/0/1: expected a string, got 1$"):
        parse_tensor([["a", 1]], 2, "string", "")


def test_a_tensor_without_axes_is_one_value() -> None:
    assert parse_tensor(7, 0, "int64", "") == np.int64(7)
    assert parse_tensor("a", 0, "string", "").shape == ()
    with pytest.raises(EkibenError, match=r"^/t: expected a whole number of -128 to 127, got a list of 1$"):
        parse_tensor([7], 0, "int8", "/t")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "/t: expected non-empty lists nested 2 deep, got 7"),
        ([], "/t: expected non-empty lists nested 2 deep, got an empty list"),
        ([7], "/t/0: expected non-empty lists nested 2 deep, got 7"),
        ([[]], "/t/0: expected non-empty lists nested 2 deep, got an empty list"),
        ([[1, 2], [3]], "/t/1: expected a list of 2 numbers (the shape is [2]), got a list of 1"),
        ([[1, 2], 3], "/t/1: expected a list of 2 numbers (the shape is [2]), got 3"),
        ([[1, [2]], [3, 4]], "/t/0/1: expected a whole number of -128 to 127, got a list of 1"),
    ],
)
def test_lists_are_nested_as_deep_as_there_are_axes(value: Any, message: str) -> None:
    with pytest.raises(EkibenError) as caught:
        parse_tensor(value, 2, "int8", "/t")
    assert caught.value.detail == message


def test_the_entries_of_a_short_row_are_named_after_their_dtype() -> None:
    with pytest.raises(EkibenError, match=r"^/1: expected a list of 1 strings"):
        parse_tensor([["a"], []], 2, "string", "")
