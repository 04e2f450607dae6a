"""Export of a trained run as the bytes of one ONNX graph.

The graph is the traced module of the source: for a run the reference itself (`Family.forward`, which includes the
softmax and the rounding of pixels), for a language model its cached decoder. Every dynamic axis is named as the source
declares it, so torch.export raises if an axis cannot vary, instead of fixing it to the example's size. The same source
gives the same bytes.
"""

from typing import Any

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript.optimizer import optimize
from torch import nn
from torch.export import ExportedProgram

from export.errors import ExportError
from export.graph.capture import capture, named_axes, positional, silence_exporter
from export.graph.recurrent import OPSET, emit_recurrent_operators
from export.source import Source
from service.data_files.data_file import DataFile
from service.manifest import MODEL

# Constants of up to this many elements are folded. With the exporter's own limit, the graph would reorder larger
# weights at run time.
MAX_FOLDED_CONSTANT = 1 << 28


def export_program(source: Source, module: nn.Module | None = None) -> torch.onnx.ONNXProgram:
    """Trace the module of the source and translate it to ONNX; nodes keep module names and source lines as metadata.

    Tests pass `module` to export a wrong graph in the place of `source.module`. Raises ExportError.
    """
    traced = module or source.module
    assert traced is not None, "a source without a module brings its own graph"
    with emit_recurrent_operators(traced), torch.no_grad(), silence_exporter():
        captured = capture(source, traced, gate="graph")
        _pool_by_mean(captured)
        try:
            program = translate(
                captured,
                inputs=[spec.name for spec in source.inputs],
                outputs=[spec.name for spec in source.outputs],
                axes=positional(traced, named_axes(source.inputs)),
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error.__cause__ or error).split())[:400]
            raise ExportError("graph", f"PyTorch cannot export {source.name}: {reason}") from error
    _name_axes(program, source)
    return program


def _pool_by_mean(captured: ExportedProgram) -> None:
    """Write each pool of whole pictures as a mean.

    Where channels come last in memory, PyTorch would compute the addresses of its elements instead.
    """
    for node in captured.graph.nodes:
        arguments: Any = node.args
        if node.target is torch.ops.aten.adaptive_avg_pool2d.default and list(arguments[1]) == [1, 1]:
            node.target, node.args = torch.ops.aten.mean.dim, (arguments[0], [-1, -2], True)
    captured.graph_module.recompile()


def translate(
    captured: ExportedProgram, *, inputs: list[str], outputs: list[str] | None, axes: dict[str, Any] | None
) -> torch.onnx.ONNXProgram:
    """The ONNX program of recorded operators, optimized, with all constants as initializers."""
    program = torch.onnx.export(
        captured,
        dynamo=True,
        opset_version=OPSET,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=axes,
        verbose=False,
    )
    assert program is not None
    optimize(program.model, input_size_limit=MAX_FOLDED_CONSTANT, output_size_limit=MAX_FOLDED_CONSTANT)
    LiftConstantsToInitializersPass(size_limit=0)(program.model)
    return program


def _name_axes(program: torch.onnx.ONNXProgram, source: Source) -> None:
    """Give the free axes of outputs, which are formulas of the inputs' axes, the names that the source declares."""
    for value, spec in zip(program.model.graph.outputs, source.outputs, strict=False):
        if value.shape is not None and len(value.shape) == len(spec.shape):
            sizes = list(value.shape)
            value.shape = onnx_ir.Shape(
                declared if isinstance(declared, str) and not isinstance(size, int) else size
                for declared, size in zip(spec.shape, sizes, strict=True)
            )


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
