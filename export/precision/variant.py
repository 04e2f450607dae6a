"""A variant of a proven model: the same contract and examples under a name of its own, in a precision of fewer bits.

Its reference is a graph in float32 that has the variant's weights, or its products, so that every gate compares the
variant as strictly as arithmetic allows. How much the precision itself loses is a gate of its own, against the parent.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from export.errors import ExportError
from export.precision.half import half_graphs
from export.precision.integer import Graphs, integer_graphs
from export.precision.reference import GraphReference
from export.precision.tf32 import tf32_graphs
from export.source import Array, Source
from service.contract.heads import LanguageModelHead
from service.contract.precision import INTEGERS, MAX_TOLERANCE, Precision, PrecisionName
from service.manifest import Manifest
from training.recipe import Split

CONVERTERS: Mapping[PrecisionName, Callable[[bytes], Graphs | None]] = {
    "tf32": tf32_graphs,
    "fp16": half_graphs,
    "int8": partial(integer_graphs, bits=8),
    "int4": partial(integer_graphs, bits=4),
}
# A number on a rounding edge makes a row differ by about a thousandth, on one processor or the other.
MIN_ROUNDING = 1e-3


def variant_of(source: Source, model: bytes, kind: PrecisionName, parent: Manifest) -> tuple[Source, bytes]:
    """The variant as a source, and the bytes of its graph. Raises ExportError if there is nothing to convert."""
    graphs = CONVERTERS[kind](model)
    if graphs is None:
        nothing = (
            "products that tf32 would round" if kind == "tf32" else f"weights that {kind} would store in fewer bits"
        )
        raise ExportError("precision", f"{source.name} has no {nothing}")
    part = "products" if kind == "tf32" else "weights"
    reference = GraphReference(graphs.reference, source.reader, source.head)
    recorded = {name: value for name, value in source.provenance.metrics.items() if not name.startswith("test_")}
    variant = replace(
        source,
        name=f"{source.name}-{kind}",
        summary=f"{source.summary.rstrip('.')}, in {kind}.",
        examples=_examples(source),
        predict=reference,
        predict_float64=None,
        module=None,
        run=None,
        atol=MAX_TOLERANCE,
        rtol=MAX_TOLERANCE,
        # The others are for GPUs, where no row is certified bit by bit; a CPU computes them in float32.
        invariance="bitwise" if kind in INTEGERS else "tolerance",
        provenance=source.provenance.model_copy(
            update={"reference": f"the graph in float32 with the {part} of {kind}", "metrics": recorded}
        ),
        precision=Precision(kind=kind, parent=f"{parent.name}/{parent.version}", items=0, agreement=1.0),
        parent=source,
        min_rounding=MIN_ROUNDING,
    )
    return variant, graphs.serving


def _examples(source: Source) -> Split:
    """The examples with every input of the graph; the state of a series is the one in which it starts."""
    examples = source.examples
    texts = examples.texts
    if isinstance(source.head, LanguageModelHead):
        # The texts of a run are those of its targets, one behind the other, and none belongs to one item.
        return replace(examples, texts=texts if len(texts) != len(examples) or source.run is None else ())
    inputs: dict[str, Array] = dict(examples.inputs)
    for spec in source.inputs:
        sizes = [axis for axis in spec.row_shape if isinstance(axis, int)]
        if spec.name not in inputs and len(sizes) == len(spec.row_shape):
            inputs[spec.name] = np.zeros((len(examples), *sizes), spec.numpy_dtype)
    return replace(examples, inputs=inputs)
