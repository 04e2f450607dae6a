"""An image for each item."""

import base64

from service.engine.batching.collate import Tensors
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.codecs.images import encode_png
from service.tasks.readers.payload import Fields, Group


def outputs(manifest: Manifest) -> list[str]:
    """Return the output that an answer needs."""
    return [spec.name for spec in manifest.head.outputs(manifest.reader)]


def answers(manifest: Manifest, outputs: Tensors, _group: Group, _fields: Fields) -> list[JsonObject]:
    """Return an `ImagePrediction` for each row."""
    [spec] = manifest.head.outputs(manifest.reader)
    return [{"image": base64.b64encode(encode_png(image)).decode()} for image in outputs[spec.name]]
