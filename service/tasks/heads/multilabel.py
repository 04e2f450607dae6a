"""The labels of an item whose probabilities, which are independent of each other, reach a threshold.

Probabilities are compared with the threshold in float32, in which the model computes them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.contract.heads import MultilabelHead
from service.engine.batching.collate import Tensors
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.readers.payload import Fields, Group


def answers(manifest: Manifest, outputs: Tensors, _group: Group, fields: Fields) -> list[JsonObject]:
    """Return a `MultilabelPrediction` for each row; the threshold of the request comes before that of the model."""
    head, threshold = manifest.head, fields["threshold"]
    assert isinstance(head, MultilabelHead), "the head of several labels"
    chosen = choose(outputs["probabilities"], head.labels, head.threshold if threshold is None else threshold)
    return [{"labels": labels} for labels in chosen]


def choose(
    probabilities_BL: npt.NDArray[np.float32], labels: Sequence[str], threshold: float
) -> list[list[JsonObject]]:
    """Return the labels (`Ranked`) of each row from the threshold on, most probable first."""
    order_BL = (-probabilities_BL).argsort(axis=1, kind="stable")
    counts_B = is_chosen(probabilities_BL, threshold).sum(axis=1)
    return [
        [{"label": labels[i], "probability": probabilities[i]} for i in order[:count]]
        for order, count, probabilities in zip(
            order_BL.tolist(), counts_B.tolist(), probabilities_BL.tolist(), strict=True
        )
    ]


def is_chosen(probabilities_BL: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
    """Return a mask of the labels from the threshold on."""
    mask: npt.NDArray[np.bool_] = probabilities_BL >= np.float32(threshold)
    return mask
