"""Every named axis of a captured module is free, whatever its signature is; an axis that is not is named."""

import pytest
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.graph.capture import capture, example_input, example_sizes, positional
from service.contract.tensors import float32, tensor
from service.manifest import AxisRange
from tests.export.graph.modules import module_source


class Named(nn.Module):
    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return x + others[0]


class Looping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, step].exp() for step in range(x.shape[1])], 1)


def test_axes_are_free_for_any_signature() -> None:
    inputs = (float32("x", "batch", "height"), float32("y", "batch", "height"))
    program = capture(module_source(Named(), inputs=inputs), Named(), gate="graph")
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"]
    assert all(not isinstance(size, int) for shape in shapes for size in shape)


def test_values_are_named_by_the_parameters_that_take_them() -> None:
    assert positional(Named(), ["a", "b", "c"]) == {"x": "a", "others": ("b", "c")}


def test_example_sizes_are_within_the_bounds_and_all_different() -> None:
    inputs = (float32("x", "batch", "height", "width", "boxes"),)
    axes = {name: AxisRange(min=16, max=40) for name in ("height", "width")} | {"boxes": AxisRange(min=77, max=78)}
    sizes = example_sizes(module_source(Named(), inputs=inputs, axes=axes))
    assert sizes == {"batch": 5, "steps": 4, "past": 6, "height": 32, "width": 24, "boxes": 77}


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16", "float32", "float64"])
def test_an_example_has_the_dtype_of_its_spec(dtype: str) -> None:
    example = example_input(tensor(dtype, "x", "batch", 2))  # type: ignore[arg-type]
    assert (str(example.dtype), tuple(example.shape)) == (f"torch.{dtype}", (5, 2))


def test_an_axis_that_the_code_fixes_is_named() -> None:
    source = module_source(Looping(), inputs=(float32("x", "batch", "steps", 2),))
    with pytest.raises(
        ExportError, match="graph: PyTorch cannot trace module: axis 'steps' cannot vary, because the code"
    ):
        capture(source, Looping(), gate="graph")
