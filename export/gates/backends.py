"""One calling convention for the backends: the reference in float32 and in float64, and the served session.

A backend returns the outputs for a whole case, whichever way the case is fed. The first axis of every array counts the
rows, wherever the model has its batch axis; a model without one runs once for each row. A language model's session runs
chunk by chunk with its cache, and the chunks' outputs are joined to the shape of one full forward pass. Steps beyond a
row's length are undefined, and every backend sets them to zero. A reference from elsewhere computes few rows at a time,
so that its activations need little memory.

Shapes: B batch, T steps, P past steps, H heads, K head size, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from export.errors import ExportError
from export.gates.cases import Array, Case
from export.source import Predict, Source
from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.contract.readers import TextReader
from service.contract.tensors import BATCH, TensorSpec, from_rows, has_rows_first, to_rows
from service.engine.sessions.session import Session

Backend = Callable[[Case], dict[str, Array]]
# A reference from elsewhere computes at most so many elements of its inputs at a time, or so many tokens, or one row.
MAX_ELEMENTS, MAX_TOKENS = 1 << 20, 1 << 12
# A cache has this many slots beyond the longest row's past. All unused slots hold garbage.
SPARE_SLOTS = 3


def reference_backend(source: Source, *, float64: bool = False) -> Backend:
    """The reference of the source, such as the trained model in eager PyTorch.

    It computes in float32 if it cannot compute in float64.
    """
    predict = (source.predict_float64 if float64 else None) or source.predict
    is_cached = isinstance(source.head, LanguageModelHead)
    decoder = source.module if is_cached and source.run is not None else None
    if decoder is not None and float64:
        decoder = copy.deepcopy(decoder).double()

    def compute(case: Case) -> dict[str, Array]:
        inputs = case.inputs if case.chunks is None else {"ids": case.inputs["ids"]}
        parts = [inputs] if source.run is not None else _slices(inputs)
        outputs = _joined([_checked_rows(part, _predict_rows(source, predict, part)) for part in parts])
        if case.chunks is not None:
            if decoder is not None:
                outputs |= _keys_and_values(decoder, source, case.inputs["ids"], float64=float64)
            _clear_padding(outputs, case.inputs["lengths"])
        return outputs

    return compute


def session_backend(session: Session) -> Backend:
    """The graph as the service runs it."""

    def compute(case: Case) -> dict[str, Array]:
        if case.chunks is not None:
            return _run_chunks(session, case)
        return session.run(case.inputs) if session.manifest.is_batched else _row_by_row(session.run, case.inputs)

    return compute


def _predict_rows(source: Source, predict: Predict, inputs: Tensors) -> dict[str, Array]:
    """Call the reference with the axes that the source declares."""
    taken, given = ({spec.name: spec for spec in specs} for specs in (source.inputs, source.outputs))
    if has_rows_first((*source.inputs, *source.outputs)):
        return predict(inputs)

    def compute(rows: Tensors) -> dict[str, Array]:
        outputs = predict({name: from_rows(values, taken[name]) for name, values in rows.items()})
        return {name: to_rows(outputs[name], spec) for name, spec in given.items()}

    is_batched = any(BATCH in spec.shape for spec in source.inputs)
    return compute(inputs) if is_batched else _row_by_row(compute, inputs)


def _checked_rows(inputs: Tensors, outputs: dict[str, Array]) -> dict[str, Array]:
    """Outputs with one row for each row of the inputs. Raises ExportError for a reference that gives more or fewer."""
    count = len(next(iter(inputs.values())))
    for name, values in outputs.items():
        if len(values) != count:
            raise ExportError(
                "parity",
                f"output {name!r} of the model has {len(values)} rows for a batch of {count}, expected as many",
            )
    return outputs


def _slices(inputs: Tensors) -> Iterator[Tensors]:
    """The rows in groups of at most MAX_ELEMENTS elements and MAX_TOKENS tokens."""
    count = len(next(iter(inputs.values())))
    elements = sum(array.size for array in inputs.values()) // count
    tokens = inputs["ids"].shape[1] if "ids" in inputs else 1
    size = max(1, min(MAX_ELEMENTS // max(elements, 1), MAX_TOKENS // max(tokens, 1)))
    for start in range(0, count, size):
        yield {name: array[start : start + size] for name, array in inputs.items()}


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """The rows of all parts. A part without the longest row may have fewer steps, which are undefined beyond it."""
    if len(parts) == 1:
        return parts[0]
    joined = {}
    for name, first in parts[0].items():
        arrays = [part[name] for part in parts]
        width = max(array.shape[1] for array in arrays) if first.ndim > 1 else 0
        joined[name] = np.concatenate([_widened(array, width) for array in arrays])
    return joined


def _widened(array: Array, width: int) -> Array:
    if array.ndim < 2 or array.shape[1] == width:
        return array
    return np.concatenate(
        [array, np.zeros_like(array, shape=(len(array), width - array.shape[1], *array.shape[2:]))], 1
    )


def _row_by_row(compute: Callable[[Tensors], dict[str, Array]], inputs: Tensors) -> dict[str, Array]:
    count = len(next(iter(inputs.values())))
    rows = [compute({name: values[row : row + 1] for name, values in inputs.items()}) for row in range(count)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _keys_and_values(decoder: nn.Module, source: Source, ids_BT: Array, *, float64: bool) -> dict[str, Array]:
    head, batch = source.head, len(ids_BT)
    assert isinstance(head, LanguageModelHead)
    empty_cache = torch.zeros(batch, head.heads, 0, head.head_size, dtype=torch.float64 if float64 else torch.float32)
    with torch.no_grad():
        past = [empty_cache] * (2 * head.layers)
        _, *new = decoder(torch.from_numpy(ids_BT), torch.zeros(batch, dtype=torch.int64), *past)
    names = [spec.name for spec in head.outputs(source.reader)[1:]]
    return dict(zip(names, (tensor.numpy() for tensor in new), strict=True))


def _clear_padding(outputs: Mapping[str, Array], lengths_B: Array) -> None:
    for name, array in outputs.items():
        for row, length in enumerate(lengths_B):
            if name == "logits":
                array[row, length:] = 0
            else:
                array[row, :, length:] = 0


def _run_chunks(session: Session, case: Case) -> dict[str, Array]:
    """Feed the case chunk by chunk, with garbage as padding tokens and in unused cache slots."""
    ids_BT, head, reader = case.inputs["ids"], session.manifest.head, session.manifest.reader
    assert isinstance(head, LanguageModelHead)
    assert isinstance(reader, TextReader)
    assert case.chunks is not None
    rng = np.random.default_rng(len(ids_BT))
    outputs = {spec.name: _empty_output(spec, ids_BT.shape) for spec in session.manifest.outputs}
    past_B = np.zeros(len(ids_BT), np.int64)
    for count_B in case.chunks:
        steps, capacity = int(count_B.max()), int(past_B.max()) + SPARE_SLOTS * bool(past_B.any())
        feed = {"ids": rng.integers(0, reader.vocabulary, (len(ids_BT), steps)), "past_lengths": past_B}
        shape = (len(ids_BT), head.heads, capacity, head.head_size)
        for spec in session.manifest.inputs[2:]:
            feed[spec.name] = rng.normal(0, 30, shape).astype(np.float32)
        for row, (past, count) in enumerate(zip(past_B, count_B, strict=True)):
            feed["ids"][row, :count] = ids_BT[row, past : past + count]
            for spec in session.manifest.inputs[2:]:
                cache = outputs[spec.name.replace("past_", "new_")]
                feed[spec.name][row, :, :past] = cache[row, :, :past]
        for name, array in session.run(feed).items():
            for row, (past, count) in enumerate(zip(past_B, count_B, strict=True)):
                if name == "logits":
                    outputs[name][row, past : past + count] = array[row, :count]
                else:
                    outputs[name][row, :, past : past + count] = array[row, :, :count]
        past_B = past_B + count_B
    return outputs


def _empty_output(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    batch, steps = shape
    sizes = {"batch": batch, "steps": steps}
    return np.zeros([sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape], spec.dtype)
