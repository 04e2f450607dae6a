"""Digits out of noise: generator 100-256-512-784 against discriminator 784-512-256-1 (Goodfellow et al. 2014)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from training.data import mnist
from training.learner import Learner, adamw, descend
from training.recipe import Data, Recipe, Split
from training.workers import Workers

LATENT_SIZE = 100
NUM_STYLES = 30
STYLE_WEIGHT = 5.0  # styles weigh less than their variations, or each would be a single picture
CALM = 0.7  # when it draws for others, how far a digit varies from its style, relative to training
LOUD = 1.2  # and how clearly it takes its style
NUM_TEST_LATENTS = 1000
SLOPE_PENALTY = 2.0


class DigitGenerator(nn.Module):
    """latents [batch, 100] -> samples in [-1, 1], [batch, 28, 28].

    The largest of the first 30 latents picks one of 30 styles, the rest vary it. Digits are kinds: a generator that is
    continuous in every latent must also draw what lies between them (ClusterGAN: Mukherjee et al. 2019). In eval mode
    it keeps to the middle of its styles (the truncation trick: Brock et al. 2019).
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(LATENT_SIZE, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Linear(512, 784),
            nn.Tanh(),
        )

    def forward(self, latents: Tensor) -> Tensor:
        votes, variation = latents[:, :NUM_STYLES], latents[:, NUM_STYLES:]
        style = (votes == votes.amax(1, keepdim=True)).to(latents.dtype) * STYLE_WEIGHT
        if not self.training:
            style, variation = LOUD * style, CALM * variation
        return self.layers(torch.cat([style, variation], 1)).reshape(-1, 28, 28)


class Discriminator(nn.Module):
    """images in [-1, 1], [batch, 28, 28] -> how real each looks, a logit [batch]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(784, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.flatten(1)).squeeze(1)


class MnistGan(nn.Module):
    """Both sides; only the generator is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = DigitGenerator()
        self.discriminator = Discriminator()


class Adversarial(Learner):
    """Two optimisers in turn: the discriminator tells each real image from a made one, the generator makes it err.

    The loss compares pairs (relativistic: Jolicoeur-Martineau 2018), so no digit can be dropped unpunished; the penalty
    on the discriminator's slope at real images (R1: Mescheder et al. 2018) keeps the two from circling.
    """

    def __init__(self, recipe: Recipe, model: MnistGan, workers: Workers) -> None:
        self.recipe = recipe
        self.workers = workers
        self.generator = workers.wrap(model.generator)
        self.discriminator = workers.wrap(model.discriminator)
        self.optimizers = {
            "generator": adamw(model.generator, recipe, betas=(0.0, 0.99)),
            "discriminator": adamw(model.discriminator, recipe, betas=(0.0, 0.99)),
        }

    def step(self, inputs: dict[str, Tensor], targets: Tensor, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        real = (inputs["images"] / 127.5 - 1).requires_grad_()
        latents = torch.randn(len(real), LATENT_SIZE, generator=generator).to(real.device)
        with self.workers.autocast():
            made = self.generator(latents)
            realness, madeness = self.discriminator(torch.cat([real, made.detach()])).float().chunk(2)
            judged = softplus(madeness - realness).mean()
        (slope,) = torch.autograd.grad(realness.sum(), real, create_graph=True)
        penalty = SLOPE_PENALTY / 2 * slope.flatten(1).square().sum(1).mean()
        descend(self.optimizers["discriminator"], judged + penalty, self.recipe.gradient_clip)

        with self.workers.autocast():
            fooled = softplus(realness.detach() - self.discriminator(made).float()).mean()
        descend(self.optimizers["generator"], fooled, self.recipe.gradient_clip)
        return {"loss": fooled.detach(), "discriminator": judged.detach()}


def load(path: Path | None) -> Data:
    """MNIST without its labels; the test split is latents to draw from."""
    data = mnist.load(path)
    latents = np.random.default_rng(mnist.SEED).standard_normal((NUM_TEST_LATENTS, LATENT_SIZE), np.float32)
    test = Split(inputs={"latents": latents}, targets=np.zeros(0, np.int64))
    return replace(data, test=test, labels=(), config={})


RECIPE = Recipe(
    name="mnist-gan",
    family="image-generator",
    summary="Draws digits out of noise: a generator 100-256-512-784 that learned from a discriminator.",
    load=load,
    build=MnistGan,
    batch_size=64,
    steps=2000,
    steps_real=16000,
    learning_rate=1e-3,
    gradient_clip=10.0,
    ema=0.998,
    learner=Adversarial,
)
