"""Ranks labels by probability.

Invariant: an answer holds the unrounded float32 probabilities of the model, so clients can compare them with the
model's output. Labels of equal probability keep the order of the model.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from service.tasks.body import AnswerBody, JsonObject

TopK = Annotated[int, Field(ge=1, le=1000, description="number of labels per item, most probable first")]


class Ranked(AnswerBody):
    """A label and its probability."""

    label: str
    probability: float = Field(description="0 to 1")


def rank(probabilities_BL: npt.NDArray[np.float32], labels: Sequence[str], top_k: int) -> list[list[JsonObject]]:
    """Return the `top_k` most probable labels (`Ranked`) of each row, most probable first, or all labels if fewer."""
    order_BK = _top_indices(probabilities_BL, top_k).tolist()
    return [
        [{"label": labels[i], "probability": probabilities[i]} for i in order]
        for order, probabilities in zip(order_BK, probabilities_BL.tolist(), strict=True)
    ]


def top_labels(
    probabilities_BL: npt.NDArray[np.float32], top_k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return indices and probabilities [batch, top_k] of the most probable labels, most probable first."""
    order_BK = _top_indices(probabilities_BL, top_k)
    return order_BK, probabilities_BL[np.arange(len(order_BK))[:, None], order_BK]


def _top_indices(probabilities_BL: npt.NDArray[np.float32], top_k: int) -> npt.NDArray[np.int64]:
    if top_k == 1:
        return probabilities_BL.argmax(axis=1, keepdims=True)
    return (-probabilities_BL).argsort(axis=1, kind="stable")[:, :top_k]
