"""MNIST classifier with one hidden layer: 784-128-10."""

from collections.abc import Sequence

from torch import Tensor, nn

from training.augment import random_shift
from training.data import mnist
from training.layers import Pixels
from training.recipe import Recipe


class MnistMlp(nn.Module):
    """One hidden layer with dropout."""

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.pixels = Pixels(mean, std)
        self.hidden = nn.Linear(28 * 28, 128)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """images uint8 [batch, 28, 28] -> logits [batch, 10]."""
        x = self.pixels(images).flatten(1)
        x = self.dropout(self.hidden(x).relu())
        return self.head(x)


RECIPE = Recipe(
    name="mnist-mlp",
    family="image-classifier",
    summary="Classifies images of handwritten digits with one hidden layer: 784-128-10.",
    load=mnist.load,
    build=MnistMlp,
    batch_size=128,
    steps=2000,
    steps_real=12000,
    learning_rate=2e-3,
    weight_decay=1e-2,
    ema=0.998,
    augment=random_shift(max_pixels=1),
)
