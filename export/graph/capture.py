"""The operators of a module, as torch.export records them with every named axis free.

torch.onnx would fix an axis that cannot vary to the example's size and try again without a word. Here an axis that
cannot vary is refused with its name and the way out.
"""

import builtins
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as fx_config

from export.errors import ExportError
from export.source import Source
from service.contract.tensors import Specs, TensorSpec

# None of these sizes is on the parity grid. None is 0 or 1, because torch.export treats those as constants.
EXAMPLE_SIZES = {"batch": 5, "steps": 4, "past": 6}
# The sizes of all other free axes in order of preference. Pictures are often halved some times.
OTHER_SIZES = (64, 96, 48, 32, 80, 112, 24, 16, 40, 12, 20, 8, 28, 36, 6, 10, 4, 14, 18, 3, 5, 7, 9, 2)


def capture(source: Source, module: nn.Module, *, gate: str) -> ExportedProgram:
    """The operators of the module with the inputs of the source. Raises ExportError of this gate."""
    sizes = example_sizes(source)
    dynamic = positional(module, [dict.fromkeys(axes, Dim.DYNAMIC) for axes in named_axes(source.inputs)])
    examples = tuple(example_input(spec, sizes) for spec in source.inputs)
    try:
        # Without this flag, an axis of the example's size 1 would be a constant.
        with symbolic_len(), fx_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            return torch.export.export(module.eval(), examples, dynamic_shapes=dynamic, strict=False)
    except ExportError:
        raise
    # torch.export has no base class for its errors.
    except Exception as error:
        raise ExportError(gate, f"PyTorch cannot trace {source.name}: {_advice(sizes, error)}") from error


@contextmanager
def symbolic_len() -> Iterator[None]:
    """Within this context, len(x) of a tensor stays free like x.shape[0]; Python's own would make it a number."""
    count = builtins.len

    def free_len(value: Any, /) -> Any:
        return value.shape[0] if isinstance(value, Tensor) and value.ndim else count(value)

    builtins.len = free_len
    try:
        yield
    finally:
        builtins.len = count


def positional(module: nn.Module, values: Sequence[Any]) -> dict[str, Any]:
    """One value for each positional input of the module, by the name of the parameter of `forward` that takes it."""
    return dict(signature(module.forward).bind(*values).arguments)


def named_axes(specs: Specs) -> list[dict[int, str]]:
    """The free axes of each tensor, by position."""
    return [{i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in specs]


def example_sizes(source: Source) -> dict[str, int]:
    """The size of each free axis with which the module is traced, within the bounds of the source and all different."""
    sizes = dict(EXAMPLE_SIZES)
    for axis in dict.fromkeys(axis for axes in named_axes(source.inputs) for axis in axes.values()):
        bounds, preferred = source.limits.axes.get(axis), (*([sizes[axis]] if axis in sizes else []), *OTHER_SIZES)
        taken = {size for other, size in sizes.items() if other != axis}
        allowed = preferred if bounds is None else [*preferred, *bounds.sizes]
        sizes[axis] = next(
            size for size in (*allowed, allowed[-1]) if size not in taken and (bounds is None or size in bounds)
        )
    return sizes


def example_input(spec: TensorSpec, sizes: Mapping[str, int] = EXAMPLE_SIZES) -> Tensor:
    """The tensor of this input with which a module is traced; its values do not matter."""
    shape = [axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape]
    if spec.name in {"lengths", "past_lengths"}:
        return torch.arange(shape[0]) % EXAMPLE_SIZES["steps"] + 1
    dtype: torch.dtype = getattr(torch, spec.dtype)
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def _advice(sizes: Mapping[str, int], error: Exception) -> str:
    """The reason in one line, with the name of the axis that cannot vary."""
    reason = " ".join(str(error).split())
    for axis, size in sizes.items():
        if re.search(rf"(?:static shape of|to be a constant \(|speciali[sz]ed to) ?{size}\b", reason):
            return (
                f"axis {axis!r} cannot vary, because the code of the module fixes it at {size}, the example's size "
                "(by a loop over its steps, or by int()); compute on whole tensors, or declare the axis as a number: "
                f"{reason[:300]}"
            )
    return reason[:400]


@contextmanager
def silence_exporter() -> Iterator[None]:
    """Silence the exporter's remarks about optional packages and about constants that it leaves to onnxruntime."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
