"""Triton's classification extension: the highest values of an output, as texts VALUE:INDEX:LABEL.

Invariant: values are those of the output, in digits that give the same number when read in its type; where values are
equal, the first index comes first. A label follows only where the model has one for each index.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract.tensors import BATCH
from service.manifest import Manifest

# Outputs whose values belong to the labels of the head.
LABELLED = frozenset({"probabilities", "logits"})


def classify_rows(
    values_BC: npt.NDArray[Any], num_classes: int, name: str, manifest: Manifest
) -> npt.NDArray[np.object_]:
    """Return texts [batch, min(num_classes, C)], or without the batch axis of a model that has none."""
    has_labels = name in LABELLED and len(manifest.labels) == values_BC.shape[1]
    endings = [f":{i}:{label}" if has_labels else f":{i}" for i, label in _numbered(manifest, values_BC.shape[1])]
    # Sorted backwards and ascending, so that the first of equal values comes last; unsigned numbers have no negative.
    order_BC = values_BC.shape[1] - 1 - values_BC[:, ::-1].argsort(axis=1, kind="stable")[:, ::-1]
    texts_BK = np.array(
        [
            [f"{values[i]!s}{endings[i]}" for i in order[:num_classes]]
            for values, order in zip(values_BC, order_BC.tolist(), strict=True)
        ],
        object,
    )
    return texts_BK if any(BATCH in spec.shape for spec in manifest.outputs) else texts_BK[0]


def _numbered(manifest: Manifest, num_values: int) -> list[tuple[int, str]]:
    labels = manifest.labels
    return [(i, labels[i] if i < len(labels) else "") for i in range(num_values)]
