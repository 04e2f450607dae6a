"""Reads tensors: one column of the input for each input of the model, with nested lists that lack the batch axis."""

from typing import Any

import orjson

from service.bundle import Tensors
from service.contract.tensors import TensorSpec
from service.drift.statistics import tensor_values
from service.scoring.input.rows import Rows
from service.scoring.scorers.cells import split_faults, to_python, try_read, unwrap
from service.scoring.scorers.scorer import BATCH_ROWS, Items, Scorer, batches_by_shape
from service.tasks.readers.tensors import read_item


class TensorsScorer(Scorer):
    def _read(self, rows: Rows) -> Items:
        specs = self._manifest.inputs
        columns = [to_python(unwrap(rows.columns[self._columns[spec.name]])) for spec in specs]
        results = [try_read(self._read_one, row) for row in zip(*columns, strict=True)]
        read, indexes, faults = split_faults(results, rows.faults, "")
        faults = {i: reason.removeprefix("/") for i, reason in faults.items()}
        max_rows = BATCH_ROWS if self._manifest.is_batched else 1
        return Items(
            indexes=indexes,
            faults=faults,
            batches=batches_by_shape(read, max_rows=max_rows),
            measure=lambda part, _: tensor_values(specs, read[part]),
            num_read=len(read),
        )

    def _read_one(self, row: tuple[Any, ...]) -> Tensors:
        specs = self._manifest.inputs
        item = {spec.name: _to_value(value, spec) for spec, value in zip(specs, row, strict=True)}
        return read_item(item, self._manifest, "")


def _to_value(value: Any, spec: TensorSpec) -> Any:
    """The value of a cell; a text is read as JSON unless the model takes one text."""
    if not isinstance(value, str) or (spec.dtype == "string" and not spec.row_shape):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
