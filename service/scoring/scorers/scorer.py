"""The scorer of a model: its reader turns rows of the input into tensors, its head turns outputs into columns.

Invariant: every row is in one of the result's `indexes` and `faults`. A column has one value per scored row, in order.
Rows of different shapes are computed in different batches.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.bundle import Tensors
from service.contract.heads import ValuesHead
from service.drift.distributions import Counts, Distributions
from service.drift.statistics import Values
from service.engine.batching.outputs import OutputCheck
from service.engine.sessions.model import Model
from service.errors import not_finite_item
from service.scoring.input.rows import Rows
from service.scoring.scorers.columns import HEADS, Outputs
from service.tasks.codecs.texts import TokenizedText

# A batch of 24 images fits in a core's cache, and onnxruntime's AVX-512 kernel multiplies 12 rows at a time.
BATCH_ROWS = 24
# Of the rows that are read together, at most this many, evenly spaced, are measured for drift.
MEASURED_ROWS = 1024
Indexes: TypeAlias = Sequence[int] | npt.NDArray[np.int64]
Positions: TypeAlias = slice | npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """The scored rows, and why each other row was rejected. The summary counts `labels` and `confidence`.

    `drift` counts the bins of the distributions in the bundle.
    `errors` are the responses of OpenAI's routes to rows of a batch that they refuse.
    """

    indexes: Indexes
    columns: Mapping[str, pa.Array]
    faults: Mapping[int, str]
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    confidence: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    errors: Mapping[int, Any] = field(default_factory=dict)
    drift: Mapping[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Items:
    """The rows that were read, whose indexes and faults these are.

    `batches` yields tensors of rows of one shape, with their positions among the items. `columns` are further columns
    of the output, and `texts` the items of a model of texts. `measure` gives the statistics of a slice of `num_read`
    items for a model with these distributions; several models may share the items.
    """

    indexes: Indexes
    faults: Mapping[int, str]
    batches: Iterable[tuple[Positions, Tensors]]
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    texts: Sequence[TokenizedText] = ()
    measure: Callable[[slice, Distributions], Values] | None = None
    num_read: int = 0


class Scorer:
    """Scores rows with one model. `columns` maps fields of the task to columns of the input."""

    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        self._model, self._columns, self._request = model, columns, request
        self._manifest = model.manifest
        self._output_check = OutputCheck(model.manifest)

    def score(self, rows: Rows) -> ScoredRows:
        """Read, compute and answer rows."""
        items, head = self._read(rows), HEADS[self._manifest.head.kind]
        outputs, not_finite = self._compute(items, head.outputs(self._manifest))
        indexes, faults, columns, texts = items.indexes, items.faults, items.columns, items.texts
        if not_finite:
            finite = np.setdiff1d(np.arange(len(indexes)), list(not_finite))
            faults = {**faults, **{int(indexes[i]): not_finite_item(name) for i, name in not_finite.items()}}
            indexes = np.asarray(indexes)[finite]
            columns = {name: column.take(pa.array(finite)) for name, column in columns.items()}
            texts = [texts[i] for i in finite] if texts else ()
            outputs = {
                name: value[finite] if isinstance(value, np.ndarray) else [value[i] for i in finite]
                for name, value in outputs.items()
            }
        answer = head.columns(self._manifest, outputs, texts, self._request)
        return ScoredRows(
            indexes=indexes,
            faults=faults,
            columns={**answer.columns, **columns},
            labels=answer.labels,
            confidence=answer.confidence,
            drift={**self._count_inputs(items), **self._count_values(outputs)},
        )

    def close(self) -> None:
        """Release what the scorer holds; most hold nothing."""

    def _read(self, rows: Rows) -> Items:
        raise NotImplementedError

    def _count_inputs(self, items: Items) -> Mapping[str, Counts]:
        """The bins of evenly spaced items, of this model."""
        distributions = self._model.distributions
        if distributions is None or items.measure is None or not items.num_read:
            return {}
        evenly = slice(None, None, -(-items.num_read // MEASURED_ROWS))
        return distributions.count_inputs(items.measure(evenly, distributions))

    def _count_values(self, outputs: Outputs) -> Mapping[str, Counts]:
        """The bins of the values that a model predicts."""
        head, distributions = self._manifest.head, self._model.distributions
        if distributions is None or not isinstance(head, ValuesHead):
            return {}
        values_BN = outputs["values"]
        return distributions.count_predictions({f"value {name}": values_BN[:, i] for i, name in enumerate(head.names)})

    def _compute(self, items: Items, names: Sequence[str]) -> tuple[Outputs, dict[int, str]]:
        """Return the outputs by position, and the positions whose outputs are not finite, with the first such output.

        Outputs of one shape are one array; others are a list of arrays, without the steps beyond the length of a row.
        """
        specs = {spec.name: spec for spec in self._manifest.outputs}
        count = len(items.indexes)
        fixed = {name: tuple(axis for axis in specs[name].row_shape if isinstance(axis, int)) for name in names}
        outputs: dict[str, Any] = {
            name: np.empty((count, *fixed[name]), specs[name].numpy_dtype)
            if len(fixed[name]) == len(specs[name].row_shape)
            else [None] * count
            for name in names
        }
        not_finite: dict[int, str] = {}
        computed = self._output_check.computed(names)
        for positions, inputs in items.batches:
            values = self._model.session.run(inputs, computed)
            places = np.arange(count)[positions]
            bad = self._output_check.bad_rows(values, inputs)
            not_finite |= {int(places[i]): name for i, name in bad.items()}
            for name in names:
                if isinstance(outputs[name], np.ndarray):
                    outputs[name][positions] = values[name]
                    continue
                is_cut = self._manifest.is_ragged and "steps" in specs[name].shape
                for i, place in enumerate(places.tolist()):
                    outputs[name][place] = values[name][i, : inputs["lengths"][i]] if is_cut else values[name][i]
        return outputs, not_finite


def batches_of(name: str, rows: npt.NDArray[Any]) -> Iterator[tuple[slice, Tensors]]:
    """Yield consecutive rows of one shape as the input `name`, BATCH_ROWS at a time."""
    for begin in range(0, len(rows), BATCH_ROWS):
        part = slice(begin, begin + BATCH_ROWS)
        yield part, {name: rows[part]}


def batches_by_shape(rows: Sequence[Tensors], *, max_rows: int = BATCH_ROWS) -> Iterator[tuple[Positions, Tensors]]:
    """Yield rows, each a batch of one, in batches of rows of equal shapes, in the order of the first of each shape."""
    by_shape: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for i, row in enumerate(rows):
        by_shape.setdefault(tuple(value.shape for value in row.values()), []).append(i)
    for positions in by_shape.values():
        for begin in range(0, len(positions), max_rows):
            part = positions[begin : begin + max_rows]
            yield np.array(part), {name: np.concatenate([rows[i][name] for i in part]) for name in rows[part[0]]}
