"""LeNet-5 for colour images: conv 6@5x5, 16@5x5, 400-120-84-10 (LeCun et al. 1998, with ReLU and max pooling)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from training.augment import random_shift
from training.data import cifar10
from training.layers import Pixels
from training.recipe import Recipe


class LeNet5(nn.Module):
    """Feature maps shrink 32 -> 28 -> 14 -> 10 -> 5; 16 maps of 5 x 5 are 400 features."""

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.pixels = Pixels(mean, std)
        self.conv1 = nn.Conv2d(3, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.hidden1 = nn.Linear(400, 120)
        self.hidden2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """images uint8 [batch, 32, 32, 3] -> logits [batch, 10]."""
        x = max_pool2d(self.conv1(self.pixels(images)).relu(), 2)
        x = max_pool2d(self.conv2(x).relu(), 2).flatten(1)
        x = self.hidden2(self.hidden1(x).relu()).relu()
        return self.head(x)


RECIPE = Recipe(
    name="cifar10-lenet5",
    family="image-classifier",
    summary="Classifies 32 x 32 colour images with LeNet-5: 6@5x5, 16@5x5, 400-120-84-10.",
    load=cifar10.load,
    build=LeNet5,
    batch_size=64,
    steps=900,
    steps_real=18000,
    learning_rate=2e-3,
    weight_decay=1e-2,
    ema=0.998,
    augment=random_shift(max_pixels=2, flip=True),
)
