"""The outputs of a model as nested lists, one prediction for each row; a model without a batch axis has one row.

Invariant: steps beyond the length of an item are zero.
"""

from service.engine.batching.collate import Tensors
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
    columns = {spec.name: outputs[spec.name].tolist() for spec in manifest.outputs}
    return [{"outputs": {name: rows[i] for name, rows in columns.items()}} for i in range(len(group.items))]
