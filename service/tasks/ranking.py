"""Probabilities to labels.

Invariant: a probability leaves as the model's float32, unrounded, so an answer can be compared with the model's own;
labels of equal probability stay in the model's order.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from service.tasks.body import Answer, Document

TopK = Annotated[int, Field(ge=1, le=1000, description="how many labels to give for each item, most probable first")]


class Ranked(Answer):
    """A label and how sure the model is of it."""

    label: str
    probability: float = Field(description="0 to 1")


def rank(probabilities_BL: npt.NDArray[np.float32], labels: Sequence[str], top_k: int) -> list[list[Document]]:
    """For each row the `top_k` most probable labels (`Ranked`), most probable first; fewer if there are fewer."""
    return [
        [{"label": labels[i], "probability": probabilities[i]} for i in order]
        for order, probabilities in zip(
            _order(probabilities_BL, top_k).tolist(), probabilities_BL.tolist(), strict=True
        )
    ]


def best(
    probabilities_BL: npt.NDArray[np.float32], top_k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Indices and probabilities [batch, top_k] of the most probable labels, most probable first."""
    order_BK = _order(probabilities_BL, top_k)
    return order_BK, probabilities_BL[np.arange(len(order_BK))[:, None], order_BK]


def _order(probabilities_BL: npt.NDArray[np.float32], top_k: int) -> npt.NDArray[np.int64]:
    if top_k == 1:
        return probabilities_BL.argmax(axis=-1, keepdims=True)
    return (-probabilities_BL).argsort(axis=-1, kind="stable")[:, :top_k]
