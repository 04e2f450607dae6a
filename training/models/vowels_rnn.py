"""Speaker classifier for spoken vowels: a two-layer Elman RNN with 50 hidden units."""

from collections.abc import Sequence

from torch import Tensor, nn

from training.augment import gaussian_noise
from training.data import vowels
from training.layers import Ragged, Standardize
from training.recipe import Recipe


class VowelsRnn(nn.Module):
    """Classifies from the state of the last layer after each row's last step."""

    def __init__(self, *, channels: int, labels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        self.ragged = Ragged(nn.RNN(channels, 50, num_layers=2, batch_first=True, dropout=0.2))
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(50, labels)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        """series [batch, steps, channels], lengths [batch] -> logits [batch, labels]."""
        _, (h_LBN,) = self.ragged(self.standardize(series), lengths)
        return self.head(self.dropout(h_LBN[-1]))


RECIPE = Recipe(
    name="vowels-rnn",
    family="series-classifier",
    summary="Identifies nine speakers by two spoken vowels, with a two-layer Elman network of 50 units.",
    load=vowels.load,
    build=VowelsRnn,
    batch_size=32,
    steps=1500,
    steps_real=1500,
    learning_rate=2e-3,
    weight_decay=1e-2,
    label_smoothing=0.05,
    ema=0.99,
    augment=gaussian_noise(0.1),
    max_steps=512,
)
