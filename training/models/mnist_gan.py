"""GAN for MNIST digits: generator 100-256-512-784, discriminator 784-512-256-1 (Goodfellow et al. 2014)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from training.data import mnist
from training.learner import Learner, adamw, optimizer_step
from training.recipe import Data, Recipe, Split
from training.workers import Workers

LATENT_SIZE = 100
NUM_STYLES = 30
NUM_TEST_LATENTS = 1000
R1_GAMMA = 2.0

# The scale of the one-hot style. Variation must outweigh it, or each style would collapse to a single image.
STYLE_WEIGHT = 5.0

# In eval mode, the variation and the style are scaled by these factors.
TRUNCATION = 0.7
STYLE_SCALE = 1.2


class DigitGenerator(nn.Module):
    """latents [batch, 100] -> samples in [-1, 1], [batch, 28, 28].

    The largest of the first 30 latents selects one of 30 styles; the other 70 latents vary it. Without discrete styles,
    the generator would be continuous and would also draw shapes between two digits (ClusterGAN: Mukherjee et al. 2019).
    In eval mode, samples stay close to the centre of their style (truncation trick: Brock et al. 2019).
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
        style_logits, variation = latents[:, :NUM_STYLES], latents[:, NUM_STYLES:]
        style = (style_logits == style_logits.amax(1, keepdim=True)).to(latents.dtype) * STYLE_WEIGHT
        if not self.training:
            style, variation = STYLE_SCALE * style, TRUNCATION * variation
        return self.layers(torch.cat([style, variation], 1)).reshape(-1, 28, 28)


class Discriminator(nn.Module):
    """images in [-1, 1], [batch, 28, 28] -> logits [batch], higher for images that look real."""

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
    """The generator and the discriminator; only the generator is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = DigitGenerator()
        self.discriminator = Discriminator()


class Adversarial(Learner):
    """Alternating updates of the discriminator and the generator, each with its own optimizer.

    The relativistic loss (Jolicoeur-Martineau 2018) compares each real image with a generated one, which penalizes a
    generator that omits a digit. The R1 penalty on the gradient of the discriminator at real images (Mescheder et al.
    2018) prevents oscillation.
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
            fake = self.generator(latents)
            real_logits, fake_logits = self.discriminator(torch.cat([real, fake.detach()])).float().chunk(2)
            discriminator_loss = softplus(fake_logits - real_logits).mean()
        (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
        penalty = R1_GAMMA / 2 * gradient.flatten(1).square().sum(1).mean()
        optimizer_step([self.optimizers["discriminator"]], discriminator_loss + penalty, self.recipe.gradient_clip)

        with self.workers.autocast():
            generator_loss = softplus(real_logits.detach() - self.discriminator(fake).float()).mean()
        optimizer_step([self.optimizers["generator"]], generator_loss, self.recipe.gradient_clip)
        return {"loss": generator_loss.detach(), "discriminator": discriminator_loss.detach()}


def load(path: Path | None) -> Data:
    """MNIST without labels; the test split holds latents to generate images from."""
    data = mnist.load(path)
    latents = np.random.default_rng(mnist.SEED).standard_normal((NUM_TEST_LATENTS, LATENT_SIZE), np.float32)
    test = Split(inputs={"latents": latents}, targets=np.zeros(0, np.int64))
    return replace(data, test=test, labels=(), config={})


RECIPE = Recipe(
    name="mnist-gan",
    family="image-generator",
    summary="Generates images of handwritten digits from random latents, with layers 100-256-512-784.",
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
