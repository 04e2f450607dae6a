"""Topic classifier for short texts: 32-dimensional word embeddings and an LSTM with 64 units.

Shapes: B batch, T steps, N hidden size, L layers.
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.augment import word_dropout
from training.data import news
from training.layers import Ragged
from training.recipe import Recipe

EMBEDDING, HIDDEN = 32, 64


class TextEncoder(nn.Module):
    """The outputs of an LSTM over the words and its state after the last word. Token 0 is padding, token 1 unknown."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMBEDDING, padding_idx=0)
        self.dropout = nn.Dropout(0.5)
        lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        with torch.no_grad():
            # Small initial embeddings are soon outweighed by learned ones.
            self.embedding.weight.mul_(0.1)
            # A large bias of the forget gate preserves the first words until the end of the text.
            bias: Any = lstm.bias_ih_l0
            bias[HIDDEN : 2 * HIDDEN] += 3
        self.ragged = Ragged(lstm)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """ids [batch, steps], lengths [batch] -> y_BTN, h_BN."""
        y_BTN, (h_LBN, _) = self.ragged(self.dropout(self.embedding(ids)), lengths)
        return y_BTN, h_LBN[-1]


class NewsLstm(nn.Module):
    """Classifies from the state of the LSTM after each text's last word."""

    def __init__(self, *, vocabulary: int, labels: int) -> None:
        super().__init__()
        self.reader = TextEncoder(vocabulary)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(HIDDEN, labels)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids [batch, steps], lengths [batch] -> logits [batch, labels]."""
        _, h_BN = self.reader(ids, lengths)
        return self.head(self.dropout(h_BN))


RECIPE = Recipe(
    name="news-lstm",
    family="text-classifier",
    summary="Classifies short texts by topic, with an LSTM of 64 units.",
    load=news.load,
    build=NewsLstm,
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
