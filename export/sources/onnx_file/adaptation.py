"""A graph from elsewhere between the canonical tensors of a reader and a head: its reference and its contract.

The adapter is the one of modules, in PyTorch, around the file as it came; the graph that is served has nodes instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from export.source import Array, Predict
from export.sources.measure import are_probabilities, check_scores, measure
from export.sources.module.adapter import Adapter, run_adapter, to_tensors
from export.sources.module.declared import declare_outputs
from export.sources.module.inputs import build_input, has_columns, table_columns
from export.sources.module.outputs import build_output
from export.sources.onnx_file.axes import check_exercised, named_axes
from export.sources.onnx_file.frozen import check_goldens
from export.sources.onnx_file.goldens import Golden, Goldens, check_count
from export.sources.onnx_file.graph import ForeignGraph
from export.sources.onnx_file.items import case_rows, payload_of
from export.sources.onnx_file.labels import check_attributes, check_label_outputs
from export.sources.onnx_file.reference import Reference, ReferenceModule
from export.sources.payload import Payload, wanted_arrays
from export.sources.trials import check_sizes
from export.spec import LabelsPart, MultilabelPart, Spec, TablePart, TensorsOutPart, TokenLabelsPart
from service.contract.heads import Head
from service.contract.readers import CategoryColumn, SeriesReader
from service.contract.tensors import Specs, to_rows

FLOATS = {"float16", "float32", "float64"}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a graph is served with, and its reference."""

    payload: Payload
    head: Head
    outputs: Specs
    predict: Predict
    metrics: dict[str, float]


def as_payload(goldens: Goldens, spec: Spec) -> Goldens:
    """Cases with the arrays of the reader. Raises ValueError for a graph's own inputs that are not the same."""
    arrays = wanted_arrays(spec.reader) or {}
    if set(goldens.names) <= set(arrays):
        return goldens
    part, (first, *others) = spec.reader, goldens.names
    if isinstance(part, TablePart) and has_columns(part, goldens.names):
        return replace(goldens, names=tuple(arrays), cases=tuple(_joined_columns(part, case) for case in goldens.cases))
    is_same = isinstance(part, TablePart) and all(column.kind == "number" for column in part.columns)
    if not is_same or others:
        required = [name for name, is_required in arrays.items() if is_required]
        raise ValueError(
            f"{goldens.path} holds {', '.join(goldens.names)}, the inputs of the graph; with the reader {part.kind}, "
            f"cases hold {' and '.join(required)} instead"
        )
    renamed = [replace(case, inputs={"numbers": case.inputs[first]}) for case in goldens.cases]
    return replace(goldens, names=("numbers",), cases=tuple(renamed))


def _joined_columns(part: TablePart, case: Golden) -> Golden:
    """A case with the columns [B, 1] of the graph as numbers and categories."""
    columns: dict[str, list[Array]] = {}
    for name, kind, _ in table_columns(part):
        columns.setdefault("numbers" if kind == "number" else "categories", []).append(case.inputs[name].reshape(-1))
    return replace(case, inputs={key: np.stack(arrays, axis=1) for key, arrays in columns.items()})


def with_output(spec: Spec, graph: ForeignGraph, goldens: Goldens) -> Spec:
    """The spec with the output of the graph that the head reads, and no activation for probabilities.

    By default it is the first output of floats that fits the labels. Raises ValueError if there is none.
    """
    head: Any = spec.head
    if isinstance(head, TensorsOutPart) or not hasattr(head, "output"):
        return spec
    name = _output_name(head, graph)
    given = [case.outputs[name] for case in goldens.cases if name in case.outputs]
    if not given:
        raise ValueError(f"{goldens.path} lacks the output {name!r} of the graph, which the head reads")
    changes: dict[str, Any] = {"output": name}
    if isinstance(head, LabelsPart | TokenLabelsPart) and "activation" not in head.model_fields_set:
        changes |= {"activation": "none"} if all(are_probabilities(array) for array in given) else {}
    return spec.model_copy(update={"head": head.model_copy(update=changes)})


def _output_name(head: Any, graph: ForeignGraph) -> str:
    values = {value.name: value for value in graph.outputs if value.dtype in FLOATS}
    listed = ", ".join(f"{value.name} {value.dtype}" for value in graph.outputs)
    if isinstance(head.output, str):
        if head.output in values:
            return head.output
        raise ValueError(f"[head] output is {head.output!r}, the graph gives {listed}; expected one of floats")
    if head.output is not None:
        if head.output < len(graph.outputs) and graph.outputs[head.output].name in values:
            return graph.outputs[head.output].name
        raise ValueError(f"[head] output is {head.output}, the graph gives {listed}; expected one of floats")
    names = list(values)
    if isinstance(head, LabelsPart | MultilabelPart | TokenLabelsPart):
        count = len(head.labels)
        names = [name for name in values if values[name].axes and values[name].axes[-1] in {count, None}] or names
    if not names:
        raise ValueError(f"the graph gives {listed}; the head {head.kind} needs an output of floats")
    return names[0]


def adapt_graph(spec: Spec, graph: ForeignGraph, goldens: Goldens, reference: Reference) -> tuple[Answers, Adapter]:
    """Compare the cases, and return the contract with the adapter around the reference. Raises ValueError."""
    payload = payload_of(spec, goldens)
    counts = _counts(goldens, payload)
    adapter = _adapter(spec, graph, payload, reference)
    arguments = [_arguments(adapter, rows, graph) for rows in case_rows(payload, counts)]
    check_exercised(graph.inputs, arguments)
    check_goldens(reference, goldens, arguments, named_axes(graph.inputs), spec.tolerance)
    check_count(goldens, counts)
    head, outputs = declare_outputs(spec, adapter, payload)

    def predict_rows(rows: Mapping[str, Array]) -> dict[str, Array]:
        answer = run_adapter(adapter, rows)
        return {tensor.name: to_rows(answer[tensor.name], tensor) for tensor in outputs}

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return run_adapter(adapter, {tensor.name: to_rows(inputs[tensor.name], tensor) for tensor in payload.inputs})

    check_scores(head, payload, predict_rows)
    check_sizes(payload, outputs, predict_rows)
    if isinstance(spec.head, LabelsPart):
        check_attributes(graph, spec.head.labels)
        probabilities = (predict_rows(rows)["probabilities"] for rows in case_rows(payload, counts))
        outputs_of = (reference.run(given, [value.name for value in graph.outputs]) for given in arguments)
        check_label_outputs(graph, spec.head.labels, zip(probabilities, outputs_of, strict=True))
    metrics = measure(head, payload, predict_rows)
    return Answers(payload=payload, head=head, outputs=outputs, predict=predict, metrics=metrics), adapter


def _counts(goldens: Goldens, payload: Payload) -> list[int]:
    """The number of items of each case, whose rows follow each other in the payload."""
    batched = next(iter(goldens.cases[0].inputs))
    spec = next((tensor for tensor in payload.inputs if tensor.name == batched), None)
    axis = spec.shape.index("batch") if spec is not None and "batch" in spec.shape else 0
    return [case.inputs[batched].shape[axis] for case in goldens.cases]


def _adapter(spec: Spec, graph: ForeignGraph, payload: Payload, reference: Reference) -> Adapter:
    graph_names, names = [value.name for value in graph.inputs], [tensor.name for tensor in payload.inputs]
    texts = _texts(spec, graph)
    has_state = isinstance(payload.reader, SeriesReader) and payload.reader.state is not None
    adapter = Adapter(
        ReferenceModule(graph, reference, texts),
        build_input(spec, graph_names, names),
        build_output(spec),
        inputs=payload.inputs,
        output=getattr(spec.head, "output", None),
        has_state=has_state,
    )
    return adapter.eval()


def _arguments(adapter: Adapter, rows: Mapping[str, Array], graph: ForeignGraph) -> dict[str, Array]:
    """The inputs of the graph that the reader makes of rows, in the dtypes of the graph."""
    with torch.no_grad():
        made = adapter.reader(*to_tensors(adapter, rows))
    module: Any = adapter.model
    if absent := [value.name for value in graph.inputs if value.name not in made]:
        raise ValueError(
            f"the graph needs the input {absent[0]!r}, which the reader does not give; it gives {', '.join(made)} (the "
            "keys of [reader] name the graph's own inputs)"
        )
    arguments: dict[str, Array] = module.inputs({value.name: made[value.name] for value in graph.inputs})
    return arguments


def _texts(spec: Spec, graph: ForeignGraph) -> dict[str, tuple[str, ...]]:
    """The values of each category that the graph takes as a text. Raises ValueError for another input of texts."""
    columns = spec.reader.columns if isinstance(spec.reader, TablePart) else ()
    values = {column.name: column.values for column in columns if isinstance(column, CategoryColumn)}
    for value in graph.inputs:
        if value.dtype == "string" and value.name not in values:
            raise ValueError(
                f"the graph reads strings ({value.name!r}), which only a table with a category of this name, or a "
                "reader and a head of kind tensors serve"
            )
    return values
