"""A graph that computes with one size of an axis is refused, and the axis is named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.sources.onnx_file.axes import named_axes
from export.sources.onnx_file.frozen import check_goldens
from export.sources.onnx_file.goldens import read_goldens
from export.sources.onnx_file.graph import read_graph
from export.sources.onnx_file.reference import Reference
from export.spec import TolerancePart
from tests.export.sources.onnx_file.graphs import Array, golden, mean_case, mean_of_steps, model_of, value, written


def check(folder: Path, model: onnx.ModelProto, *cases: dict[str, Array]) -> None:
    path = written(folder, model)
    graph = read_graph(path)
    goldens = read_goldens(golden(folder, *cases), [one.name for one in graph.inputs], {}, graph.outputs)
    inputs = [case.inputs for case in goldens.cases]
    check_goldens(Reference(path), goldens, inputs, named_axes(graph.inputs), TolerancePart())


def test_right_goldens_pass(tmp_path: Path) -> None:
    check(tmp_path, mean_of_steps(), mean_case(5, 4), mean_case(3, 7))


def test_wrong_golden_is_refused_without_blaming_an_axis(tmp_path: Path) -> None:
    changed = mean_case(3, 7)
    changed["y"] = changed["y"] + 1
    with pytest.raises(
        ValueError, match=r"case 1 does not come out of the graph: output 'y' at \[\d, \d\]: the golden"
    ):
        check(tmp_path, mean_of_steps(), mean_case(3, 4), changed, mean_case(3, 7))


@pytest.mark.parametrize("sizes", [((5, 4), (3, 7)), ((5, 7), (5, 4), (3, 9)), ((5, 5), (5, 9))])
def test_axis_that_is_not_read_to_its_end_is_frozen(tmp_path: Path, sizes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match=r"case \d does not come out of the graph, because its axis 'time' is frozen"):
        check(tmp_path, mean_of_steps(frozen=4), *(mean_case(*size) for size in sizes))


def test_goldens_of_the_frozen_graph_itself_do_not_help(tmp_path: Path) -> None:
    cases = [mean_case(5, 4), mean_case(3, 7)]
    for case in cases:
        case["y"] = case["x"][:, :4].mean(1)
    with pytest.raises(ValueError, match="do not depend on the further entries along the axis 'time', which is frozen"):
        check(tmp_path, mean_of_steps(frozen=4), *cases)


def test_axis_of_the_shape_that_a_golden_output_has_is_frozen(tmp_path: Path) -> None:
    """Every answer has one step, as when an exporter traced one."""
    node = helper.make_node("Slice", ["x", "zero", "one", "one"], ["y"])
    inputs, outputs = ([value(name, TensorProto.FLOAT, "batch", "time", 2)] for name in ("x", "y"))
    model = model_of([node], inputs, outputs, zero=np.array([0]), one=np.array([1]))
    cases = [{"x": case["x"], "y": case["x"]} for case in (mean_case(5, 4), mean_case(3, 7))]
    with pytest.raises(ValueError, match=r"because its axis 'time' is frozen.* the golden one"):
        check(tmp_path, model, *cases)


def test_graph_that_fails_at_other_sizes_is_frozen(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "offset"], ["y"])
    inputs, outputs = ([value(name, TensorProto.FLOAT, "batch", "time", 2)] for name in ("x", "y"))
    model = model_of([node], inputs, outputs, offset=np.zeros((1, 4, 2), np.float32))
    cases = [{"x": case["x"], "y": case["x"]} for case in (mean_case(5, 4), mean_case(3, 7))]
    with pytest.raises(ValueError, match=r"case 1 .* its axis 'time' is frozen.*: the graph fails for x \[3, 7, 2\]"):
        check(tmp_path, model, *cases)


def test_mask_that_is_equal_everywhere_blames_no_axis(tmp_path: Path) -> None:
    """Changing it to the values in front changes nothing, which says nothing about the graph."""
    inputs = [value("ids", TensorProto.INT64, "batch", "time")]
    node = helper.make_node("ReduceSum", ["ids", "axis"], ["y"], keepdims=0)
    model = model_of([node], inputs, [value("y", TensorProto.INT64, "batch")], axis=np.array([1]))
    ones = [{"ids": np.ones(size, np.int64), "y": np.full(size[0], size[1])} for size in ((5, 4), (3, 7))]
    check(tmp_path, model, *ones)
