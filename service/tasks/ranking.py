"""Probabilities to labels.

Invariant: a probability leaves as the model's float32, unrounded, so an answer can be compared with the model's own;
labels of equal probability stay in the model's order.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from service.tasks.body import Answer

TopK = Annotated[int, Field(ge=1, le=1000, description="how many labels to give for each item, most probable first")]


class Ranked(Answer):
    """A label and how sure the model is of it."""

    label: str
    probability: float = Field(description="0 to 1")


def rank(probabilities_BL: npt.NDArray[np.float32], labels: Sequence[str], top_k: int) -> list[list[Ranked]]:
    """For each row the `top_k` most probable labels, most probable first; fewer if the model has fewer labels."""
    order_BK, best_BK = best(probabilities_BL, top_k)
    return [
        [Ranked(label=labels[i], probability=p) for i, p in zip(order, probabilities, strict=True)]
        for order, probabilities in zip(order_BK.tolist(), best_BK.tolist(), strict=True)
    ]


def best(
    probabilities_BL: npt.NDArray[np.float32], top_k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Indices and probabilities [batch, top_k] of the most probable labels, most probable first."""
    if top_k == 1:
        order_BK = probabilities_BL.argmax(axis=-1, keepdims=True)
    else:
        order_BK = np.argsort(-probabilities_BL, axis=-1, kind="stable")[:, :top_k]
    return order_BK, probabilities_BL[np.arange(len(order_BK))[:, None], order_BK]
