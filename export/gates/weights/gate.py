"""The weights gate: every constant of the graph is one that the model uses, and stands where the model uses it.

The graph is read node by node beside the trace of the module. The next constant of the graph must be the next parameter
of the module, bit by bit under a named transformation; only literals of the code may be absent from the graph. So no
value can change, no two weights can be exchanged, none can be missing and none can come from nowhere. Whole numbers
(shapes, axes, bounds of slices) must occur in the trace, and no node may be there that no operator becomes.
"""

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
import onnx

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.weights.attributes import check_attributes
from export.gates.weights.constant import GraphConstant, SourceConstant, matches, nearest, rounding, transformation
from export.gates.weights.counts import check_counts
from export.gates.weights.graph import GraphConstants, read_constants
from export.gates.weights.source import Folding, TracedModule, read_source

# Axes, and the bounds of a slice without end.
COMMON_INTEGERS = {*range(-8, 8), np.iinfo(np.int64).min, np.iinfo(np.int64).max}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How many initializers were made in which way.

    `max_rounding` is the largest distance of a computed one from its value in float64, relative to its largest element.
    `unused` names the parameters that no operator of the module uses, and that the graph therefore lacks.
    """

    transformations: dict[str, int]
    max_rounding: float
    unused: tuple[str, ...] = ()

    @property
    def num_initializers(self) -> int:
        """All initializers of the graph."""
        return sum(self.transformations.values())


def check_weights(candidate: Candidate) -> Weights:
    """Account for every constant of the graph. Raises ExportError that names the first one that fails."""
    graph = onnx.load_from_string(candidate.model).graph
    source, constants = read_source(candidate.source), read_constants(graph, candidate.external_values())
    for name, array in constants.unread.items():
        raise ExportError("weights", f"initializer {name!r} {array.shape} is read by no node")
    # A recipe of training uses what it trains; a model from elsewhere may carry parts for other purposes.
    for name in source.unused if candidate.source.run is not None else ():
        raise ExportError("weights", f"{name!r} is used by no operator of the model, so the graph cannot hold it")
    pairs = _match(constants, source)
    _check_integers(constants, source)
    check_attributes(graph, source.operators)
    check_counts(graph, source.operators, computes_sizes=source.computes_sizes)
    return _summary(pairs, constants, source)


def _match(constants: GraphConstants, source: TracedModule) -> list[tuple[GraphConstant, SourceConstant]]:
    """Each float constant of the graph with its counterpart in the module."""
    pairs: list[tuple[GraphConstant, SourceConstant]] = []
    remaining = deque(source.constants)
    for found in constants.floats:
        expected = _next(remaining, found)
        while expected is not None and not expected.names and not matches(found, expected):
            expected = _next(remaining, found)
        if expected is None or not matches(found, expected):
            raise ExportError("weights", _mismatch(found, expected, constants, source))
        pairs.append((found, expected))
    while remaining:
        first = remaining.popleft()
        expected = first.separate[0] if isinstance(first, Folding) else first
        if expected.names:
            raise ExportError("weights", f"{expected} is absent from the graph")
    return pairs


def _next(remaining: deque[SourceConstant | Folding], found: GraphConstant) -> SourceConstant | None:
    """Remove and return the next constant of the module. A normalisation was folded if the graph's constant says so."""
    if not remaining:
        return None
    entry = remaining.popleft()
    if isinstance(entry, SourceConstant):
        return entry
    first, *others = entry.separate if matches(found, entry.separate[0]) else entry.folded
    remaining.extendleft(reversed(others))
    return first


def _mismatch(
    found: GraphConstant, expected: SourceConstant | None, constants: GraphConstants, source: TracedModule
) -> str:
    """The reason why the graph's constant differs; the module uses `expected` there, or no more constants."""
    held = next((one for one in source.all_constants if one.names and matches(found, one)), None)
    if held is None:
        return f"{found}, read by {found.reader}, is no constant of the model: {nearest(found, source.all_constants)}"
    if expected is None:
        return f"{found.reader} reads {found}, which holds {held}, where the model uses no more constants"
    if any(matches(one, expected) for one in constants.floats):
        return f"{found.reader} reads {found}, which holds {held}, where the model uses {expected}"
    return f"{expected} is absent from the graph; where the model uses it, {found.reader} reads {found}"


def _check_integers(constants: GraphConstants, source: TracedModule) -> None:
    known = COMMON_INTEGERS | source.integers
    for name, array in constants.integers.items():
        unknown = [int(value) for value in array.ravel() if int(value) not in known]
        if unknown and not any(np.array_equal(array.ravel(), one.ravel()) for one in source.integer_tensors):
            raise ExportError(
                "weights",
                f"{name} {array.shape} holds {unknown[0]}, which is no size, axis or bound of the model",
            )


def _summary(
    pairs: list[tuple[GraphConstant, SourceConstant]], constants: GraphConstants, source: TracedModule
) -> Weights:
    names = {found.name: transformation(found, expected) for found, expected in reversed(pairs)}
    names |= dict.fromkeys(constants.integers, "shape, axis or bound")
    counts = Counter(change for name, change in names.items() if name.startswith("initializer"))
    largest = max((rounding(found, expected) for found, expected in pairs), default=0.0)
    return Weights(transformations=dict(sorted(counts.items())), max_rounding=largest, unused=source.unused)
