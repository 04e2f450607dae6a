"""A vector for each item."""

from service.engine.batching.collate import Tensors
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.readers.payload import Fields, Group


def answers(_manifest: Manifest, outputs: Tensors, _group: Group, _fields: Fields) -> list[JsonObject]:
    """Return an `EmbeddingPrediction` for each row."""
    return [{"embedding": row} for row in outputs["embedding"].tolist()]
