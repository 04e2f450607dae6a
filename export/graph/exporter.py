"""Export of a trained run as the bytes of one ONNX graph.

The graph is the traced module of the source: for a run the reference itself (`Family.forward`, which includes the
softmax and the rounding of pixels), for a language model its cached decoder. Every dynamic axis is named as the source
declares it, so torch.export raises if an axis cannot vary, instead of fixing it to the example's size. The same source
gives the same bytes.
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

from export.errors import ExportError
from export.graph.recurrent import OPSET, emit_recurrent_operators
from export.source import Source
from service.contract.tensors import TensorSpec
from service.data_files.data_file import DataFile
from service.manifest import MODEL

# None of these sizes is on the parity grid. None is 0 or 1, because torch.export treats those as constants.
EXAMPLE_SIZES = {"batch": 5, "steps": 4, "past": 6}
# Constants of up to this many elements are folded. With the exporter's own limit, the graph would reorder larger
# weights at run time.
MAX_FOLDED_CONSTANT = 1 << 28
DTYPES = {"float32": torch.float32, "int64": torch.int64, "uint8": torch.uint8}


def export_program(source: Source, module: nn.Module | None = None) -> torch.onnx.ONNXProgram:
    """Trace the module of the source and translate it to ONNX; nodes keep module names and source lines as metadata.

    Tests pass `module` to export a wrong graph in the place of `source.module`. Raises ExportError.
    """
    dynamic = tuple({i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in source.inputs)
    traced = module or source.module
    assert traced is not None, "a source without a module brings its own graph"
    try:
        with emit_recurrent_operators(), torch.no_grad(), silence_exporter():
            program = torch.onnx.export(
                traced.eval(),
                tuple(example_input(spec) for spec in source.inputs),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in source.inputs],
                output_names=[spec.name for spec in source.outputs],
                dynamic_shapes=(dynamic,),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:400]
        raise ExportError("graph", f"PyTorch cannot export {source.name}: {reason}") from error
    assert program is not None
    optimize(program.model, input_size_limit=MAX_FOLDED_CONSTANT, output_size_limit=MAX_FOLDED_CONSTANT)
    LiftConstantsToInitializersPass(size_limit=0)(program.model)
    return program


def strip_metadata(program: torch.onnx.ONNXProgram, data: DataFile | None = None) -> bytes:
    """The bytes of the graph for the bundle, without stack traces, paths and documentation.

    `data` holds the weights that were moved out of the program.
    """
    proto: onnx.ModelProto = program.model_proto
    graph = proto.graph
    proto.doc_string = ""
    del proto.metadata_props[:]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    content: bytes = proto.SerializeToString(deterministic=True)
    if data is None:
        onnx.checker.check_model(proto, full_check=True)
    else:
        # The checker looks for the data file beside the graph.
        path = data.path.with_name(MODEL)
        path.write_bytes(content)
        onnx.checker.check_model(path, full_check=True)
    return content


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


def example_input(spec: TensorSpec) -> Tensor:
    """The tensor of this input with which a model is traced."""
    sizes = [axis if isinstance(axis, int) else EXAMPLE_SIZES[axis] for axis in spec.shape]
    if spec.name in {"lengths", "past_lengths"}:
        return torch.arange(sizes[0]) % 4 + 1
    generator = torch.Generator().manual_seed(0)
    if spec.dtype == "float32":
        return torch.randn(sizes, generator=generator)
    return torch.randint(0, 2, sizes, generator=generator, dtype=DTYPES[spec.dtype])
