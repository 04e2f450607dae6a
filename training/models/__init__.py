"""The registry: every recipe by its name. A new model is one file in this folder and one line here."""

from training.models import (
    cifar10_cnn,
    cifar10_lenet5,
    mnist_cnn,
    mnist_gan,
    mnist_mlp,
)
from training.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    "mnist-mlp": mnist_mlp.RECIPE,
    "mnist-cnn": mnist_cnn.RECIPE,
    "cifar10-lenet5": cifar10_lenet5.RECIPE,
    "cifar10-cnn": cifar10_cnn.RECIPE,
    "mnist-gan": mnist_gan.RECIPE,
}
