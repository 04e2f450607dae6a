"""`python -m export onnx`: an ONNX graph from elsewhere, with golden inputs and outputs, as a source.

The given outputs are compared first, element by element. For all other inputs the reference is the file as it came, run
without optimisation; the account of weights does not apply to it.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from export.source import Array, Source
from export.sources.onnx_file.adaptation import Answers, adapt_graph, as_payload, with_output
from export.sources.onnx_file.adapted import adapted_graph, served_graph
from export.sources.onnx_file.axes import axis_sizes, check_declared, input_axes, output_axes
from export.sources.onnx_file.columns import draft_table
from export.sources.onnx_file.frozen import check_goldens
from export.sources.onnx_file.goldens import Golden, Goldens, check_count, read_goldens
from export.sources.onnx_file.graph import ForeignGraph, read_graph
from export.sources.onnx_file.items import payload_of
from export.sources.onnx_file.reference import Reference
from export.sources.payload import Payload, wanted_arrays
from export.sources.registry import Loaded
from export.sources.spec_source import bundle_name, spec_source
from export.sources.trials import check_sizes
from export.spec import Spec, TensorPart, TensorsOutPart, TensorsPart, parse_spec, read_spec
from service.contract.heads import TensorsHead
from service.contract.tensors import BATCH, TensorSpec, from_rows, to_rows

ANY_TENSORS = {"reader": {"kind": "tensors"}, "head": {"kind": "tensors"}}
REFERENCE = "the given outputs"


def load(options: Namespace) -> Loaded:
    """The source of a graph. Raises ValueError, one sentence with the file and the way out."""
    spec = read_spec(options.spec) if options.spec is not None else None
    graph = read_graph(options.model, control_flow=spec is not None and spec.control_flow)
    spec = spec or parse_spec(_drafted(graph) or ANY_TENSORS, Path("spec.toml"))
    reads_tensors = isinstance(spec.reader, TensorsPart)
    reader_arrays = {} if reads_tensors else wanted_arrays(spec.reader) or {}
    goldens = read_goldens(options.golden, [value.name for value in graph.inputs], reader_arrays, graph.outputs)
    if reads_tensors:
        spec = _with_inputs(spec, graph, goldens)
    else:
        goldens = as_payload(goldens, spec)
    reference = Reference(graph.path)
    if reads_tensors and isinstance(spec.head, TensorsOutPart):
        spec, answers = _tensor_contract(spec, graph, goldens, reference)
        content = served_graph(graph, answers.payload.inputs, answers.outputs)
    else:
        spec = with_output(spec, graph, goldens)
        answers, adapter = adapt_graph(spec, graph, goldens, reference)
        content = adapted_graph(graph, spec, adapter, answers.payload.inputs, answers.outputs)
    return Loaded(source=_source(options, spec, graph, goldens, answers), graph=content)


def _drafted(graph: ForeignGraph) -> dict[str, Any] | None:
    """The spec of a graph that takes a table column by column; None for another one."""
    is_table = all(len(value.axes) == 2 and not isinstance(value.axes[0], int) for value in graph.inputs)
    if not is_table or any(value.axes[1] != 1 for value in graph.inputs):
        return None
    return draft_table(graph.model.graph, {value.name: value.dtype for value in graph.inputs})


def _with_inputs(spec: Spec, graph: ForeignGraph, goldens: Goldens) -> Spec:
    """The spec with the graph's own inputs, each with names for its free axes that the cases exercise."""
    assert isinstance(spec.reader, TensorsPart)
    parts, cases = spec.reader.inputs, [case.inputs for case in goldens.cases]
    if parts:
        check_declared(parts, graph.inputs, cases)
    else:
        parts = input_axes(graph.inputs, cases)
    bounds = {axis: (min(sizes), max(sizes)) for axis, sizes in _sizes_by_axis(parts, goldens.cases).items()}
    bounds = {axis: size for axis, size in bounds.items() if axis not in {BATCH, "steps"}}
    limits = spec.limits.model_copy(update={"axes": bounds | spec.limits.axes})
    if not any(BATCH in part.shape for part in parts):
        # Every item runs alone.
        limits = limits.model_copy(update={"max_items": 1})
    reader = spec.reader.model_copy(update={"inputs": parts})
    return spec.model_copy(update={"reader": reader, "limits": limits})


def _sizes_by_axis(parts: tuple[TensorPart, ...], cases: tuple[Golden, ...]) -> dict[str, list[int]]:
    sizes = axis_sizes(parts, [case.inputs for case in cases])
    return {axis: [one[axis] for one in sizes] for axis in sizes[0]}


def _tensor_contract(spec: Spec, graph: ForeignGraph, goldens: Goldens, reference: Reference) -> tuple[Spec, Answers]:
    """The contract of a graph whose own tensors are served."""
    assert isinstance(spec.reader, TensorsPart)
    assert isinstance(spec.head, TensorsOutPart)
    sizes = axis_sizes(spec.reader.inputs, [case.inputs for case in goldens.cases])
    inputs = [case.inputs for case in goldens.cases]
    check_goldens(reference, goldens, inputs, spec.reader.inputs, spec.tolerance)
    check_count(goldens, [one.get(BATCH, 1) for one in sizes], is_batched=BATCH in sizes[0])
    declared = spec.head.outputs
    names = [part.name for part in declared] or [value.name for value in graph.outputs]
    _check_given(names, graph, goldens)
    _check_declared_outputs(declared, graph, goldens)
    if not declared:
        declared = output_axes(graph.outputs, sizes, [case.outputs for case in goldens.cases])

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return reference.run(inputs, names)

    outputs = tuple(TensorSpec(name=part.name, dtype=part.dtype, shape=part.shape) for part in declared)
    payload = payload_of(spec, goldens)

    def predict_rows(rows: Mapping[str, Array]) -> dict[str, Array]:
        answer = predict({tensor.name: from_rows(rows[tensor.name], tensor) for tensor in payload.inputs})
        return {tensor.name: to_rows(answer[tensor.name], tensor) for tensor in outputs}

    if BATCH in sizes[0]:
        check_sizes(payload, outputs, predict_rows)
    return spec, Answers(payload=payload, head=TensorsHead(), outputs=outputs, predict=predict, metrics={})


def _check_given(names: list[str], graph: ForeignGraph, goldens: Goldens) -> None:
    outputs = [value.name for value in graph.outputs]
    if unknown := [name for name in names if name not in outputs]:
        raise ValueError(f"[[head.outputs]] has {unknown[0]!r}, the graph gives {', '.join(outputs)}")
    if absent := [name for name in names if name not in goldens.cases[0].outputs]:
        raise ValueError(
            f"{goldens.path} lacks the output {absent[0]!r}; give it, or name the others in [[head.outputs]] of a spec"
        )


def _check_declared_outputs(declared: tuple[TensorPart, ...], graph: ForeignGraph, goldens: Goldens) -> None:
    dtypes = {value.name: value.dtype for value in graph.outputs}
    for part in declared:
        for case in goldens.cases:
            shape = case.outputs[part.name].shape
            is_equal = len(shape) == len(part.shape) and all(
                isinstance(axis, str) or axis == size for axis, size in zip(part.shape, shape, strict=True)
            )
            if not is_equal or part.dtype != dtypes[part.name]:
                raise ValueError(
                    f"[[head.outputs]] {part.name} is {part.dtype} {list(part.shape)}, the graph gives "
                    f"{dtypes[part.name]} {list(shape)}"
                )


def _source(options: Namespace, spec: Spec, graph: ForeignGraph, goldens: Goldens, answers: Answers) -> Source:
    payload: Payload = answers.payload
    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return spec_source(
        spec,
        payload,
        name=options.name or spec.name or bundle_name(graph.path),
        summary=f"The graph {graph.path.name}",
        note=(
            f"The {len(payload.split)} golden items that came with `{graph.path.name}`. The graph gives the given "
            "outputs for them."
        ),
        recipe="onnx",
        reference=REFERENCE,
        dataset=goldens.path.name,
        files=(graph.path, goldens.path, options.spec),
        head=answers.head,
        outputs=answers.outputs,
        predict=answers.predict,
        predict_float64=None,
        module=None,
        metrics=answers.metrics,
        versions=versions,
        opset=graph.opset,
    )
