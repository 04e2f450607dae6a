"""Topic classifier for short texts: attention pooling over the outputs of an LSTM.

The last state of the LSTM is the query; the classifier reads this state and the weighted mean of the outputs. The two
recipes differ in the score of an output y for the state h (Luong, Pham, Manning 2015, "Effective Approaches to
Attention-based Neural Machine Translation", section 3.1): y . h for `dot`, y . W h for `general`. Padding has weight 0.

Shapes: B batch, T steps, N hidden size.
"""

from functools import partial
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from training.augment import word_dropout
from training.data import news
from training.models.news_lstm import HIDDEN, TextEncoder
from training.recipe import Recipe


class NewsAttention(nn.Module):
    def __init__(self, *, score: Literal["dot", "general"], vocabulary: int, labels: int) -> None:
        super().__init__()
        self.reader = TextEncoder(vocabulary)
        self.query = nn.Identity() if score == "dot" else nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(2 * HIDDEN, labels)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids [batch, steps], lengths [batch] -> logits [batch, labels]."""
        y_BTN, h_BN = self.reader(ids, lengths)
        weights_BT = self.attention(y_BTN, h_BN, lengths)
        pooled_BN = (weights_BT.unsqueeze(1) @ y_BTN).squeeze(1)
        return self.head(self.dropout(torch.cat([pooled_BN, h_BN], dim=1)))

    def attention(self, y_BTN: Tensor, h_BN: Tensor, lengths_B: Tensor) -> Tensor:
        """The attention weights, [batch, steps]; each row sums to 1."""
        scores_BT = (y_BTN @ self.query(h_BN).unsqueeze(2)).squeeze(2) / sqrt(HIDDEN)
        padding_BT = torch.arange(y_BTN.shape[1], device=y_BTN.device) >= lengths_B.unsqueeze(1)
        return scores_BT.masked_fill(padding_BT, float("-inf")).softmax(1)


def _recipe(score: Literal["dot", "general"], formula: str) -> Recipe:
    return Recipe(
        name=f"news-attention-{score}",
        family="text-classifier",
        summary=f"Classifies short texts by topic, with attention ({formula}) over the outputs of an LSTM.",
        load=news.load,
        build=partial(NewsAttention, score=score),
        batch_size=64,
        steps=600,
        steps_real=1600,
        learning_rate=5e-3,
        weight_decay=0.3,
        label_smoothing=0.1,
        ema=0.99,
        evaluations=10,
        augment=word_dropout(0.4),
        max_steps=512,
    )


DOT = _recipe("dot", "y·h")
GENERAL = _recipe("general", "y·Wh")
