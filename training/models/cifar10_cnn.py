"""CIFAR-10 classifier with two convolutions: 32@3x3 and 64@3x3, both padded and pooled, then 4096-128-10."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from training.augment import random_shift
from training.data import cifar10
from training.layers import Pixels
from training.recipe import Recipe


class Cifar10Cnn(nn.Module):
    """Feature maps shrink 32 -> 16 -> 8; 64 maps of 8 x 8 are 4,096 features. Both dense layers use dropout."""

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.pixels = Pixels(mean, std)
        self.conv1 = nn.Conv2d(3, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.hidden = nn.Linear(4096, 128)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """images uint8 [batch, 32, 32, 3] -> logits [batch, 10]."""
        x = max_pool2d(self.conv1(self.pixels(images)).relu(), 2)
        x = max_pool2d(self.conv2(x).relu(), 2).flatten(1)
        x = self.hidden(self.dropout(x)).relu()
        return self.head(self.dropout(x))


RECIPE = Recipe(
    name="cifar10-cnn",
    family="image-classifier",
    summary="Classifies 32 x 32 colour images with two convolutions: 32@3x3, 64@3x3, 4096-128-10.",
    load=cifar10.load,
    build=Cifar10Cnn,
    batch_size=64,
    steps=350,
    steps_real=8000,
    learning_rate=1.5e-3,
    weight_decay=2e-2,
    ema=0.998,
    augment=random_shift(max_pixels=2, flip=True),
)
