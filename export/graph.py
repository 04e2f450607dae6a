"""From a trained run to the bytes of one ONNX graph.

The graph of every family is the traced reference itself (`Family.forward`, so softmax and pixel rounding are inside); a
language model's is its cached decoder. Dynamic axes are given by name, as the interface declares them: torch.export
raises then where an axis cannot vary, instead of fixing it to the example's size. The same run gives the same bytes.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript.optimizer import optimize
from torch import Tensor, nn

from export.candidate import ExportError
from export.decoder import CachedDecoder
from export.interface import interface
from export.recurrent import OPSET, emitted_as_onnx
from service.families import TensorSpec
from training.checkpoint import Run
from training.families import FAMILIES, Family

EXAMPLE = {"batch": 5, "steps": 4, "past": 6}  # no size of the parity grid; 0 and 1 would be special to torch.export
LARGEST_CONSTANT = 1 << 28  # elements; the exporter alone leaves the reordering of larger weights to run time
DTYPES = {"float32": torch.float32, "int64": torch.int64, "uint8": torch.uint8}


class Reference(nn.Module):
    """A family's reference as a module of positional tensors."""

    def __init__(self, family: Family, model: nn.Module) -> None:
        super().__init__()
        self.family, self.model = family, model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.family.forward(self.model, dict(zip(self.family.inputs, inputs, strict=True)))
        return tuple(outputs[name] for name in self.family.outputs)


def wrapped(run: Run) -> nn.Module:
    """The module whose positional inputs and outputs are those of the interface."""
    family = FAMILIES[run.recipe.family]
    return CachedDecoder(run.model) if run.recipe.family == "language-model" else Reference(family, run.model)


def export_program(run: Run, module: nn.Module | None = None) -> torch.onnx.ONNXProgram:
    """Trace and translate; the nodes still carry module names and source lines.

    `module` is exported in the place of `wrapped(run)`, for tests that want a wrong graph.
    """
    shape = interface(run)
    dynamic = tuple({i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in shape.inputs)
    try:
        with emitted_as_onnx(), torch.no_grad(), _quiet():
            program = torch.onnx.export(
                (module or wrapped(run)).eval(),
                tuple(_example(spec) for spec in shape.inputs),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in shape.inputs],
                output_names=[spec.name for spec in shape.outputs],
                dynamic_shapes=(dynamic,),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:400]
        raise ExportError("graph", f"PyTorch cannot export {run.recipe.name}: {reason}") from error
    assert program is not None
    optimize(program.model, input_size_limit=LARGEST_CONSTANT, output_size_limit=LARGEST_CONSTANT)
    LiftConstantsToInitializersPass(size_limit=0)(program.model)
    return program


def release(program: torch.onnx.ONNXProgram) -> bytes:
    """The graph without stack traces, paths and documentation: what goes into a bundle."""
    proto: onnx.ModelProto = program.model_proto
    proto.doc_string = ""
    del proto.metadata_props[:]
    for part in (proto.graph, *proto.graph.node, *proto.graph.initializer, *_values(proto.graph)):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about itself: packages it could use, constants it leaves to onnxruntime."""
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


def _values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return [*graph.input, *graph.output, *graph.value_info]


def _example(spec: TensorSpec) -> Tensor:
    sizes = [axis if isinstance(axis, int) else EXAMPLE[axis] for axis in spec.shape]
    if spec.name in {"lengths", "past_lengths"}:
        return torch.arange(sizes[0]) % 4 + 1
    generator = torch.Generator().manual_seed(0)
    if spec.dtype == "float32":
        return torch.randn(sizes, generator=generator)
    return torch.randint(0, 2, sizes, generator=generator, dtype=DTYPES[spec.dtype])
