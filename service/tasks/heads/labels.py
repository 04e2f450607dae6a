"""The most probable labels of an item."""

from service.engine.batching.collate import Tensors
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.heads.ranking import rank
from service.tasks.readers.payload import Fields, Group


def answers(manifest: Manifest, outputs: Tensors, _group: Group, fields: Fields) -> list[JsonObject]:
    """Return a `LabelPrediction` for each row."""
    ranked = rank(outputs["probabilities"], manifest.labels, fields["top_k"])
    return [{**top[0], "top": top} for top in ranked]
