"""A constant of the graph agrees with one of the module by its bits, and by rounding only where it was computed."""

from typing import Any

import numpy as np
import pytest

from export.gates.weights.constant import GraphConstant, SourceConstant, matches, nearest, rounding, transformation


def source(value: Any, **more: Any) -> SourceConstant:
    array = np.asarray(value, np.float32)
    return SourceConstant(**{"names": ("w",), "value": array, "stored": array, **more})


def graph(value: Any, **more: Any) -> GraphConstant:
    array = np.asarray(value, more.pop("dtype", np.float32))
    return GraphConstant(**{"name": "initializer 'x'", "reader": "node 3 (Mul)", "raw": array, "value": array, **more})


@pytest.mark.parametrize(
    ("found", "expected", "agrees"),
    [
        ([1, 2], [1, 2], True),
        ([[1], [2]], [1, 2], True),
        ([[1, 2]], [[1], [2]], True),
        ([[1, 2], [3, 4]], [1, 2, 3, 4], False),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ([0.0], [-0.0], False),
        ([np.nextafter(np.float32(1), np.float32(2))], [1], False),
        ([np.nan], [np.nan], True),
    ],
)
def test_parameters_agree_bit_by_bit_whatever_the_axes_of_size_one(found: Any, expected: Any, agrees: bool) -> None:
    assert matches(graph(found), source(expected)) is agrees


def test_a_parameter_of_another_type_does_not_agree() -> None:
    assert not matches(graph([1, 2], dtype=np.float64), source([1, 2]))


@pytest.mark.parametrize(
    ("found", "literal", "agrees"),
    [
        (255, 255, True),
        ([[0.7, 0.7]], 0.7, True),
        ([0.7, 0.8], 0.7, False),
        (254, 255, False),
        (-np.inf, -np.inf, True),
        (-3e38, -np.inf, False),
        ([], 1, False),
    ],
)
def test_a_literal_agrees_with_its_float32_value_in_any_shape(found: Any, literal: float, agrees: bool) -> None:
    value = np.array(literal, np.float64)
    assert matches(graph(found), SourceConstant(names=(), value=value, stored=value)) is agrees


def test_a_computed_constant_may_be_rounded_if_it_says_so() -> None:
    found = graph([1.0, np.float32(1.0) + np.float32(2**-23)])
    exact = np.array([1.0, 1.0])
    assert not matches(found, source([1, 1], exact=exact))
    assert matches(found, source([1, 1], exact=exact, max_rounding=2**-22))
    assert not matches(graph([1, 1 + 2**-21]), source([1, 1], exact=exact, max_rounding=2**-22))
    assert not matches(graph([1, np.nan]), source([1, 1], exact=exact, max_rounding=2**-22))


def test_literals_and_biases_of_zeros_may_be_left_out() -> None:
    assert source([0, 0]).may_be_left_out
    assert not source([0, 1]).may_be_left_out
    assert not source([[0, 0]]).may_be_left_out
    assert source([3], names=()).may_be_left_out


def test_rounding_is_relative_to_the_largest_element() -> None:
    assert rounding(graph([4.0, 1.5]), source([4, 1], exact=np.array([4.0, 1.0]))) == 0.125
    assert rounding(graph([0.5]), source([0.25], exact=np.array([0.25]))) == 1
    assert rounding(graph([4.0]), source([1])) == 0


def test_a_transformation_is_named_by_what_the_initializer_holds() -> None:
    stored = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert transformation(graph(stored), source(stored.T, stored=stored)) == "as it is"
    assert transformation(graph(stored.T), source(stored.T, stored=stored)) == "transposed"
    square = stored[:, :2]
    assert transformation(graph(square.T), source(square.T, stored=square)) == "transposed"
    assert transformation(graph(stored[None]), source(stored)) == "reshaped"
    assert transformation(graph(stored, change="joined"), source(stored)) == "joined"
    assert transformation(graph(stored), source(stored, change="split")) == "split"
    assert transformation(graph(1), source(1, names=())) == "constant of the code"


def test_the_nearest_parameter_is_named_with_the_largest_difference_and_its_place() -> None:
    others = [source([1, 2], names=("a",)), source([1, 2.5], names=("b",)), source([1, 2, 3], names=("c",))]
    assert nearest(graph([1, 2.75]), others) == "the nearest is 'b' (2,), which differs by 0.25 at [1]"
    assert nearest(graph([1, np.nan]), others[:1]).endswith("differs by inf at [1]")
    assert nearest(graph([[1, 2], [3, 4]]), others) == "the model uses no constant of its shape"


def test_constants_are_described_by_name_and_shape() -> None:
    assert str(source([[1, 2]], names=("a", "b"))) == "'a' with 'b' (1, 2)"
    assert str(source(255, names=())) == "the constant 255"
    assert str(source([1, 2], names=())) == "a constant of the code (2,)"
    assert str(graph([1, 2])) == "initializer 'x' (2,)"
