"""The outputs of a model as nested lists, one prediction for each row of the batch axis.

Invariant: steps beyond the length of an item are zero. An output without a batch axis belongs to every item, and a
model without one gives one prediction.
"""

from typing import Any

import numpy as np

from service.contract.tensors import TensorSpec
from service.engine.batching.collate import Array, Tensors
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.readers.payload import Fields, Group
from service.tasks.tensors import clear_padding


def outputs(manifest: Manifest) -> list[str]:
    """Return the outputs that an answer needs: all."""
    return [spec.name for spec in manifest.outputs]


def answers(manifest: Manifest, outputs: Tensors, group: Group, _fields: Fields) -> list[JsonObject]:
    """Return a `TensorsPrediction` for each row."""
    clear_padding(outputs, group.inputs, manifest)
    columns = {spec.name: split_rows(outputs[spec.name], spec, num_rows=len(group.items)) for spec in manifest.outputs}
    return [{"outputs": {name: rows[i] for name, rows in columns.items()}} for i in range(len(group.items))]


def split_rows(output: Array, spec: TensorSpec, *, num_rows: int) -> list[Any]:
    """Return the part of an output that belongs to each row, as nested lists."""
    if "batch" not in spec.shape:
        return [output.tolist()] * num_rows
    rows: list[Any] = np.moveaxis(output, spec.shape.index("batch"), 0).tolist()
    return rows
