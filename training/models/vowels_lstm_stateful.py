"""Speaker tagger for spoken vowels: an LSTM with 64 units that predicts at every step; the caller holds its state.

A series gives the same predictions in one call as in several calls that pass the state on.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from training.augment import gaussian_noise
from training.data import vowels
from training.layers import Ragged, Standardize
from training.recipe import Recipe


class VowelsLstmStateful(nn.Module):
    """The state tensors h and c are batch-first, [batch, layers, 64], like all other inputs and outputs."""

    def __init__(self, *, channels: int, labels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        self.ragged = Ragged(nn.LSTM(channels, 64, batch_first=True))
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(64, labels)

    def forward(self, series: Tensor, lengths: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits [batch, steps, labels], next_h and next_c with the shapes of h and c."""
        state = h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous()
        y_BTN, (h_LBN, c_LBN) = self.ragged(self.standardize(series), lengths, state)
        return self.head(self.dropout(y_BTN)), h_LBN.transpose(0, 1), c_LBN.transpose(0, 1)


RECIPE = Recipe(
    name="vowels-lstm-stateful",
    family="series-tagger",
    summary="Identifies nine speakers while they speak, with an LSTM of 64 units that answers at every step.",
    load=vowels.load,
    build=VowelsLstmStateful,
    batch_size=32,
    steps=1500,
    steps_real=1500,
    learning_rate=3e-3,
    weight_decay=1e-2,
    label_smoothing=0.05,
    ema=0.99,
    augment=gaussian_noise(0.3),
    max_steps=512,
)
