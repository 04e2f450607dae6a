"""MNIST classifier with one convolution: conv 10@5x5, pool, 1440-50-10; its accuracy exceeds 99 %."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from training.augment import random_shift
from training.data import mnist
from training.layers import Pixels
from training.recipe import Recipe


class MnistCnn(nn.Module):
    """Feature maps shrink 28 -> 24 (convolution) -> 12 (pool); 10 maps of 12 x 12 are 1,440 features."""

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.pixels = Pixels(mean, std)
        self.conv = nn.Conv2d(1, 10, kernel_size=5)
        self.hidden = nn.Linear(1440, 50)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(50, 10)

    def forward(self, images: Tensor) -> Tensor:
        """images uint8 [batch, 28, 28] -> logits [batch, 10]."""
        x = max_pool2d(self.conv(self.pixels(images)).relu(), 2).flatten(1)
        x = self.dropout(self.hidden(x).relu())
        return self.head(x)


RECIPE = Recipe(
    name="mnist-cnn",
    family="image-classifier",
    summary="Classifies images of handwritten digits with one convolution: 10@5x5, pool, 1440-50-10.",
    load=mnist.load,
    build=MnistCnn,
    batch_size=128,
    steps=1600,
    steps_real=12000,
    learning_rate=3e-3,
    weight_decay=1e-2,
    ema=0.998,
    augment=random_shift(max_pixels=2),
)
