"""The topic of a short text: word embeddings of 32 and an LSTM of 64 units, read at each text's own last word.

Shapes: B batch, T steps, N hidden size, L layers.
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.augment import forget_words
from training.data import news
from training.layers import Ragged
from training.recipe import Recipe

EMBEDDING, HIDDEN = 32, 64


class Reader(nn.Module):
    """Words to an LSTM's steps and its state after each text's last. Token 0 is padding, token 1 an unknown word."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMBEDDING, padding_idx=0)
        self.dropout = nn.Dropout(0.5)
        lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        with torch.no_grad():
            self.embedding.weight.mul_(0.1)  # small, so that what is learned outweighs what was drawn
            bias: Any = lstm.bias_ih_l0
            bias[HIDDEN : 2 * HIDDEN] += 3  # the forget gate: a text's first words last to its end
        self.ragged = Ragged(lstm)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """ids [B, T], lengths [B] -> y_BTN, h_BN."""
        y_BTN, (h_LBN, _) = self.ragged(self.dropout(self.embedding(ids)), lengths)
        return y_BTN, h_LBN[-1]


class NewsLstm(nn.Module):
    def __init__(self, *, vocabulary: int, labels: int) -> None:
        super().__init__()
        self.reader = Reader(vocabulary)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(HIDDEN, labels)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids [batch, steps], lengths [batch] -> logits [batch, labels]."""
        _, h_BN = self.reader(ids, lengths)
        return self.head(self.dropout(h_BN))


RECIPE = Recipe(
    name="news-lstm",
    family="text-classifier",
    summary="Tells the topic of a short text, with an LSTM of 64 units over its words.",
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
    augment=forget_words(0.4),
    max_steps=512,
)
