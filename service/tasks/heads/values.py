"""Named numbers; `GET /models/NAME` shows their units."""

from service.contract.heads import ValuesHead
from service.engine.batching.collate import Tensors
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.readers.payload import Fields, Group


def answers(manifest: Manifest, outputs: Tensors, _group: Group, _fields: Fields) -> list[JsonObject]:
    """Return a `ValuesPrediction` for each row."""
    assert isinstance(manifest.head, ValuesHead), "the head of values"
    names = manifest.head.names
    return [{"values": dict(zip(names, row, strict=True))} for row in outputs["values"].tolist()]
