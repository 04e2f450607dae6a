"""The scorer of a model: its reader turns rows of the input into tensors, its head turns outputs into columns.

Invariant: every row is in one of the result's `indexes` and `faults`. A column has one value per scored row, in order.
Rows of different shapes are computed in different batches.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

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
from service.manifest import TOKENIZER, Manifest
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


class Measured(NamedTuple):
    """The statistics of `num_items` items that were read: `measure` gives those of a slice for some distributions."""

    num_items: int
    measure: Callable[[slice, Distributions], Values]


@dataclass(frozen=True, kw_only=True)
class Items:
    """The rows that were read, whose indexes and faults these are.

    `batches` yields tensors of rows of one shape, with their positions among the items, each time it is iterated.
    `columns` are further columns of the output, and `texts` the items of a model of texts; `measured` is what drift is
    counted of. Several models may compute the same items, so nothing changes them.
    """

    indexes: Indexes
    faults: Mapping[int, str]
    batches: Iterable[tuple[Positions, Tensors]]
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    texts: Sequence[TokenizedText] = ()
    measured: Measured | None = None


class Batches(Iterable[tuple[Positions, Tensors]]):
    """Batches that are built anew by every iteration, so that only one of them is in memory."""

    def __init__(self, build: Callable[..., Iterator[tuple[Positions, Tensors]]], *args: Any, **kwargs: Any) -> None:
        self._build = partial(build, *args, **kwargs)

    def __iter__(self) -> Iterator[tuple[Positions, Tensors]]:
        return self._build()


class Scorer:
    """Scores rows with one model. `columns` maps fields of the task to columns of the input."""

    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        self._model, self._columns, self._request = model, columns, request
        self._manifest = model.manifest
        self._output_check = OutputCheck(model.manifest)
        self._reading = self._describe_reading()

    def score(self, rows: Rows, read: MutableMapping[str, Items] | None = None) -> ScoredRows:
        """Read, compute and answer rows. `read` holds the items of these rows that other scorers have read."""
        read = {} if read is None else read
        if self._reading not in read:
            read[self._reading] = self._read(rows)
        items, head = read[self._reading], HEADS[self._manifest.head.kind]
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
            drift={**self._count_inputs(items.measured), **self._count_values(outputs)},
        )

    def close(self) -> None:
        """Release what the scorer holds; most hold nothing."""

    def _read(self, rows: Rows) -> Items:
        raise NotImplementedError

    def _describe_reading(self) -> str:
        """Everything that `_read` depends on beside the rows: scorers with equal descriptions read equal items."""
        manifest = self._manifest
        return json.dumps(
            [
                type(self).__name__,
                dict(self._columns),
                self._request.get("truncate"),
                manifest.model_dump(
                    mode="json",
                    include={"reader": True, "inputs": True, "limits": {"max_steps", "axes"}, "domain": True},
                ),
                manifest.head.kind == "token-labels",
                {name: entry.sha256 for name, entry in manifest.files.items() if name == TOKENIZER},
                # A state is that of one version.
                manifest.version if getattr(manifest.reader, "state", None) else "",
            ],
            sort_keys=True,
        )

    def _count_inputs(self, measured: Measured | None) -> Mapping[str, Counts]:
        """The bins of some of the items that were read."""
        distributions = self._model.distributions
        if distributions is None or measured is None or not measured.num_items:
            return {}
        part = slice(None, None, -(-measured.num_items // MEASURED_ROWS))
        return distributions.count_inputs(measured.measure(part, distributions))

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
        all_places = np.arange(len(items.indexes))
        outputs = empty_outputs(self._manifest, names, len(items.indexes))
        not_finite: dict[int, str] = {}
        computed = self._output_check.computed(names)
        for positions, inputs in items.batches:
            values = self._model.session.run(inputs, computed)
            places = all_places[positions]
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


def empty_outputs(manifest: Manifest, names: Sequence[str], count: int) -> dict[str, Any]:
    """Room for the outputs of some rows: an array if all of them have one shape, else a list."""
    specs = {spec.name: spec for spec in manifest.outputs}
    fixed = {name: tuple(axis for axis in specs[name].row_shape if isinstance(axis, int)) for name in names}
    return {
        name: np.empty((count, *fixed[name]), specs[name].numpy_dtype)
        if len(fixed[name]) == len(specs[name].row_shape)
        else [None] * count
        for name in names
    }


def batches_of(name: str, rows: npt.NDArray[Any]) -> Iterator[tuple[Positions, Tensors]]:
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
