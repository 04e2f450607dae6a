"""Axes get names and are exercised at two sizes, or are refused by name."""

from typing import Any

import numpy as np
import pytest

from export.sources.onnx_file.axes import (
    axis_sizes,
    check_declared,
    check_exercised,
    input_axes,
    named_axes,
    output_axes,
)
from export.sources.onnx_file.graph import Axis, Value
from export.spec import TensorPart


def values(**axes: tuple[Axis, ...]) -> list[Value]:
    return [Value(name=name, dtype="float32", axes=shape) for name, shape in axes.items()]


def case(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def shapes(parts: tuple[TensorPart, ...]) -> dict[str, tuple[int | str, ...]]:
    return {part.name: part.shape for part in parts}


def test_first_axis_in_front_is_the_batch() -> None:
    cases = [case(x=(2, 4)), case(x=(3, 4))]
    for name in (None, "N", "rows", "batch"):
        assert shapes(input_axes(values(x=(name, 4)), cases)) == {"x": ("batch", 4)}


def test_axis_that_is_called_batch_is_the_batch() -> None:
    cases = [case(x=(7, 2, 4)), case(x=(5, 3, 4))]
    assert shapes(input_axes(values(x=("time", "batch", 4)), cases)) == {"x": ("time", "batch", 4)}


def test_graph_without_a_free_axis_has_no_batch() -> None:
    assert shapes(input_axes(values(x=(1, 4)), [case(x=(1, 4))])) == {"x": (1, 4)}


def test_axes_without_names_get_one_for_all_that_vary_together() -> None:
    graph = values(ids=(None, None), mask=(None, None), image=(None, 3, None, "side"))
    cases = [
        case(ids=(2, 5), mask=(2, 5), image=(2, 3, 8, 16)),
        case(ids=(3, 6), mask=(3, 6), image=(3, 3, 9, 16 + 1)),
    ]
    expected = {"ids": ("batch", "ids_1"), "mask": ("batch", "ids_1"), "image": ("batch", 3, "image_2", "side")}
    assert shapes(input_axes(graph, cases)) == expected
    assert axis_sizes(input_axes(graph, cases), cases)[1] == {"batch": 3, "ids_1": 6, "image_2": 9, "side": 17}


@pytest.mark.parametrize(
    ("axes", "sizes", "message"),
    [
        ((None, 4), [(2, 4), (2, 4)], "the axis 'batch' of input 'x' has the size 2 in every golden case; add a case"),
        (("batch", "time"), [(2, 4), (3, 4)], "the axis 'time' of input 'x' has the size 4 in every golden case"),
        ((None, None), [(2, 4), (3, 4)], "the axis 'x_1' of input 'x' has the size 4 in every golden case"),
        (("s", "s"), [(2, 2), (3, 4)], "the axis 's' has the sizes 2, 3 and 2, 4 in the same cases"),
        ((None, 4), [(2, 5), (3, 5)], r"golden 'x' is float32 \[2, 5\], the graph takes float32 \['\?', 4\]"),
        ((None, 4), [(2,), (3,)], r"golden 'x' is float32 \[2\], the graph takes float32"),
    ],
)
def test_axis_that_is_not_exercised_is_refused(
    axes: tuple[Axis, ...], sizes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        input_axes(values(x=axes), [case(x=size) for size in sizes])


def test_golden_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"golden 'x' is float64 \[2, 4\], the graph takes float32 \['\?', 4\]"):
        input_axes(values(x=(None, 4)), [{"x": np.zeros((2, 4))}])
    texts = [Value(name="x", dtype="string", axes=(None,))]
    cases = [{"x": np.array(["a", "b"])}, {"x": np.array(["c"], object)}]
    assert shapes(input_axes(texts, cases)) == {"x": ("batch",)}


def test_declared_inputs_are_those_of_the_graph() -> None:
    graph, cases = values(x=(None, None)), [case(x=(2, 5)), case(x=(3, 6))]

    def check(name: str, dtype: Any, *shape: int | str) -> None:
        check_declared([TensorPart(name=name, dtype=dtype, shape=shape)], graph, cases)

    check("x", "float32", "time", "batch")
    with pytest.raises(ValueError, match=r"\[\[reader.inputs\]\] are z, the graph has x"):
        check("z", "float32", "batch", "time")
    with pytest.raises(ValueError, match=r"x is int64 \['batch', 'time'\], the graph takes float32 \['\?', '\?'\]"):
        check("x", "int64", "batch", "time")
    with pytest.raises(ValueError, match=r"x is float32 \['batch'\], the graph takes"):
        check("x", "float32", "batch")
    with pytest.raises(ValueError, match="the axis 'time' of input 'x' has the size 5 in every golden case"):
        check_declared(
            [TensorPart(name="x", dtype="float32", shape=("batch", "time"))], graph, [cases[0], case(x=(3, 5))]
        )
    fixed = values(x=(None, 5))
    with pytest.raises(ValueError, match=r"x is float32 \['batch', 'time'\], the graph takes float32 \['\?', 5\]"):
        check_declared([TensorPart(name="x", dtype="float32", shape=("batch", "time"))], fixed, [cases[0]])


def test_own_inputs_are_exercised_under_the_names_of_the_graph() -> None:
    graph = values(x=("n", "time", 2))
    assert shapes(named_axes(graph)) == {"x": ("batch", "time", 2)}
    check_exercised(graph, [case(x=(2, 5, 2)), case(x=(3, 6, 2))])
    with pytest.raises(ValueError, match="the axis 'time' of input 'x' has the size 5"):
        check_exercised(graph, [case(x=(2, 5, 2)), case(x=(3, 5, 2))])


SIZES = [{"batch": 2, "time": 5}, {"batch": 3, "time": 6}]


@pytest.mark.parametrize(
    ("axes", "first", "second", "expected"),
    [
        ((None, 3), (2, 3), (3, 3), ("batch", 3)),
        (("odd_name_0", "odd_name_1"), (2, 5), (3, 6), ("batch", "time")),
        (("batch", "time"), (2, 5), (3, 6), ("batch", "time")),
        (("batch", None), (2, 7), (3, 7), ("batch", 7)),
        (("batch", "features"), (2, 7), (3, 7), ("batch", 7)),
    ],
)
def test_axes_of_outputs_are_those_of_inputs(
    axes: tuple[Axis, ...], first: tuple[int, ...], second: tuple[int, ...], expected: tuple[int | str, ...]
) -> None:
    assert shapes(output_axes(values(y=axes), SIZES, [case(y=first), case(y=second)])) == {"y": expected}


def test_output_with_an_axis_of_its_own_or_without_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"axis 1 of output 'y' varies \(8, 4\) and is no axis of the inputs; name it"):
        output_axes(values(y=("batch", None)), SIZES, [case(y=(2, 8)), case(y=(3, 4))])
    with pytest.raises(ValueError, match="output 'y' has no batch axis"):
        output_axes(values(y=(4,)), SIZES, [case(y=(4,)), case(y=(4,))])
