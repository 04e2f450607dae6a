"""What a scorer makes of some rows.

Invariant: every row is in `kept` or in `faults`, never in both; the columns have one value for each kept row, in order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.engine.sessions.model import Model
from service.scoring.rows import Rows
from service.tasks.ranking import top_labels

BATCH = 24  # rows of one run: they fit in a core's cache, and onnxruntime's AVX-512 kernel multiplies 12 rows at a time


@dataclass(frozen=True, kw_only=True)
class Scored:
    """`kept`: indexes into the rows. `labels` and `confidence`: what the summary counts, None if there is no such."""

    kept: Sequence[int] | npt.NDArray[np.int64]
    columns: Mapping[str, pa.Array]
    faults: Mapping[int, str]
    labels: npt.NDArray[np.int64] | None = None
    confidence: npt.NDArray[np.float32] | None = None


class Scorer(Protocol):
    """One model over rows."""

    def score(self, rows: Rows) -> Scored: ...

    def close(self) -> None: ...


def run(model: Model, name: str, rows: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
    """One output of the session, of one input (`name`) of at least one row, computed a batch at a time."""
    compute, names = model.session.compute, [output]
    first = compute({name: rows[:BATCH]}, names)[output]
    whole = np.empty((len(rows), *first.shape[1:]), first.dtype)
    whole[:BATCH] = first
    for begin in range(BATCH, len(rows), BATCH):
        # copied at once: the session's own memory is free again, and still in the cache
        whole[begin : begin + BATCH] = compute({name: rows[begin : begin + BATCH]}, names)[output]
    return whole


def ranked(probabilities_BL: npt.NDArray[np.float32], labels: pa.Array, top_k: int) -> dict[str, Any]:
    """Columns `label` and `probability`, and `top` if more than one label is asked for; order and confidence beside."""
    order_BK, probability_BK = top_labels(probabilities_BL, top_k)
    columns = {"label": labels.take(pa.array(order_BK[:, 0])), "probability": pa.array(probability_BK[:, 0])}
    if top_k > 1:
        count, width = order_BK.shape
        pairs = pa.StructArray.from_arrays(
            [labels.take(pa.array(order_BK.reshape(-1))), pa.array(probability_BK.reshape(-1))],
            ["label", "probability"],
        )
        columns["top"] = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * width), pairs)
    return {"columns": columns, "labels": order_BK[:, 0], "confidence": probability_BK[:, 0]}
