"""A batch is computed: rows of several requests run together, with a value or an error for every row.

A failing batch is bisected until the failing rows stand alone. Slices with NaN or infinity are taken out before. Rows
whose outputs are not finite have an error; the others have their values.
"""

import logging
from collections.abc import Sequence

from service.engine.batching.collate import Array, NotFiniteError
from service.engine.batching.outputs import NotFiniteOutputError
from service.engine.batching.request import RequestSlice

SliceResult = tuple[RequestSlice, dict[str, Array] | Exception]

log = logging.getLogger(__name__)


def compute(slices: Sequence[RequestSlice]) -> list[SliceResult]:
    """The result of every row; all slices are of one session."""
    try:
        return _run(slices)
    except NotFiniteError:
        return _run_finite(slices)
    except Exception as error:  # noqa: BLE001 - onnxruntime raises bare subclasses of Exception
        head, rest = _halves(slices)
        if not rest:
            log.error("%s: the model failed on one row: %s", head[0].request.collator.model, error)
            return [(head[0], error.with_traceback(None))]  # its traceback holds this frame
        return compute(head) + compute(rest)


def _run(slices: Sequence[RequestSlice]) -> list[SliceResult]:
    first = slices[0].request
    collator = first.collator
    if len(slices) == 1 and slices[0].is_whole:
        collator.check_finite(first.inputs)
        answer = first.session.run(first.inputs, first.outputs)
        bad = collator.output_check.bad_rows(answer, first.inputs)
        return [(slices[0], NotFiniteOutputError(bad) if bad else answer)]
    batch = collator.collate([part.inputs() for part in slices], max(part.longest for part in slices))
    collator.check_finite(batch)
    answer = first.session.run(batch, _union(slices))
    bad = collator.output_check.bad_rows(answer, batch)
    results: list[SliceResult] = []
    start = 0
    for part in slices:
        names = part.request.outputs
        end = start + part.num_rows
        if bad and (bad_here := {row - start: name for row, name in bad.items() if start <= row < end}):
            results.append((part, NotFiniteOutputError(bad_here)))
        else:
            results.append((part, {name: answer[name][start:end] for name in (answer if names is None else names)}))
        start = end
    return results


def _run_finite(slices: Sequence[RequestSlice]) -> list[SliceResult]:
    """Refuse the slices that hold numbers that are not finite, and run the others."""
    refused: list[SliceResult] = []
    finite: list[RequestSlice] = []
    for part in slices:
        try:
            part.request.collator.check_finite(part.inputs())
            finite.append(part)
        except NotFiniteError as error:
            refused.append((part, error.with_traceback(None)))
    return refused + (compute(finite) if finite else [])


def _union(slices: Sequence[RequestSlice]) -> Sequence[str] | None:
    """The outputs that any of the requests asks for."""
    names = slices[0].request.outputs
    if all(part.request.outputs == names for part in slices):
        return names
    names_of_all: dict[str, None] = {}
    for part in slices:
        if part.request.outputs is None:
            return None
        names_of_all.update(dict.fromkeys(part.request.outputs))
    return tuple(names_of_all)


def _halves(slices: Sequence[RequestSlice]) -> tuple[list[RequestSlice], list[RequestSlice]]:
    """Two halves by rows; the second is empty if there is one row."""
    if len(slices) > 1:
        middle = len(slices) // 2
        return list(slices[:middle]), list(slices[middle:])
    (part,) = slices
    if part.num_rows == 1:
        return [part], []
    head = part.split(part.num_rows // 2)
    return [head], [part]
