"""The interface of a scorer, its result, and the steps that scorers share.

Invariant: every row is in one of the result's `indexes` and `faults`. A column has one value per scored row, in order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.engine.batching.outputs import OutputCheck
from service.engine.sessions.model import Model
from service.errors import not_finite_item
from service.scoring.input.rows import Rows
from service.tasks.heads.ranking import top_labels

# A batch of 24 images fits in a core's cache, and onnxruntime's AVX-512 kernel multiplies 12 rows at a time.
BATCH_ROWS = 24
Indexes: TypeAlias = Sequence[int] | npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """The scored rows, and why each other row was rejected. The summary counts `labels` and `confidence`."""

    indexes: Indexes
    columns: Mapping[str, pa.Array]
    faults: Mapping[int, str]
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    confidence: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


class Scorer:
    """Scores rows with one model. `columns` maps fields of the task to columns of the input."""

    def __init__(self, model: Model, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
        self._model, self._columns, self._request = model, columns, request
        self._labels = pa.array(model.manifest.labels, pa.string())
        self._output_check = OutputCheck(model.manifest)

    def score(self, rows: Rows) -> ScoredRows:
        raise NotImplementedError

    def close(self) -> None:
        """Release what the scorer holds; most hold nothing."""

    def _rank(
        self,
        read: tuple[Indexes, Mapping[int, str]],
        probabilities_BL: npt.NDArray[np.float32],
        not_finite: Mapping[int, str],
        **columns: pa.Array,
    ) -> ScoredRows:
        """Rank the labels of the rows that were read, whose indexes and faults these are, and add more columns.

        `not_finite` maps the position of a row among those that were read to an output of the model: it is rejected.
        """
        indexes, faults = read
        if not_finite:
            finite = np.setdiff1d(np.arange(len(indexes)), list(not_finite))
            faults = {**faults, **{int(indexes[i]): not_finite_item(name) for i, name in not_finite.items()}}
            indexes, probabilities_BL = np.asarray(indexes)[finite], probabilities_BL[finite]
            columns = {name: column.take(pa.array(finite)) for name, column in columns.items()}
        ranked = rank_columns(probabilities_BL, self._labels, self._request.get("top_k", 1))
        return ScoredRows(
            indexes=indexes,
            faults=faults,
            columns={**ranked["columns"], **columns},
            labels=ranked["labels"],
            confidence=ranked["confidence"],
        )


def run_batches(model: Model, name: str, rows: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
    """Compute one output of the session from the input `name`, BATCH_ROWS rows at a time. `rows` must not be empty."""
    compute, names = model.session.compute, [output]
    first = compute({name: rows[:BATCH_ROWS]}, names)[output]
    whole = np.empty((len(rows), *first.shape[1:]), first.dtype)
    whole[:BATCH_ROWS] = first
    for begin in range(BATCH_ROWS, len(rows), BATCH_ROWS):
        # Copying at once frees the session's own memory for the next batch while it is still in the cache.
        whole[begin : begin + BATCH_ROWS] = compute({name: rows[begin : begin + BATCH_ROWS]}, names)[output]
    return whole


def rank_columns(probabilities_BL: npt.NDArray[np.float32], labels: pa.Array, top_k: int) -> dict[str, Any]:
    """Fields of ScoredRows: `labels`, `confidence` and the columns label, probability and, if top_k > 1, top."""
    order_BK, probability_BK = top_labels(probabilities_BL, top_k)
    columns = {"label": labels.take(pa.array(order_BK[:, 0])), "probability": pa.array(probability_BK[:, 0])}
    if top_k > 1:
        count, width = order_BK.shape
        flat_labels, flat_probabilities = labels.take(pa.array(order_BK.ravel())), pa.array(probability_BK.ravel())
        columns["top"] = pair_lists(flat_labels, flat_probabilities, np.arange(count + 1) * width)
    return {"columns": columns, "labels": order_BK[:, 0], "confidence": probability_BK[:, 0]}


def pair_lists(labels: pa.Array, probabilities: pa.Array, offsets: npt.NDArray[np.int64]) -> pa.ListArray:
    """Lists of pairs of label and probability, cut at the offsets."""
    pairs = pa.StructArray.from_arrays([labels, probabilities], ["label", "probability"])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pairs)
