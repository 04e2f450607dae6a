"""The thresholds of mnist-gan reject generators that repeat a few images."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.thresholds import GAN_THRESHOLDS
from training.fidelity import measure_fidelity
from training.models import mnist_gan


class Repeated(nn.Module):
    """A generator of the given images, uint8 [images, 28, 28], in turn."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        self.samples = nn.Parameter(torch.from_numpy(images).float() / 127.5 - 1)

    def generator(self, latents: Tensor) -> Tensor:
        return self.samples[torch.arange(len(latents)) % len(self.samples)]


@pytest.mark.parametrize("kind", ["means", "images"])
def test_ten_repeated_images_miss_the_thresholds(kind: str) -> None:
    data = mnist_gan.load(None)
    classes = [data.train.inputs["images"][data.train.targets == label] for label in range(10)]
    ten = [images.mean(0).round() if kind == "means" else images[0] for images in classes]
    scores = measure_fidelity(Repeated(np.stack(ten).astype(np.uint8)), data.test, real=data.train)
    assert scores["precision"] > 0.85
    recorded = {f"test_{name}": value for name, value in scores.items()}
    missed = [
        each.metric for each in GAN_THRESHOLDS if each.metric in recorded and not each.is_met(recorded[each.metric])
    ]
    assert missed == ["test_recall", "test_coverage"]


def test_real_images_meet_the_thresholds() -> None:
    data = mnist_gan.load(None)
    images = mnist_gan.mnist.load(None).test.inputs["images"]
    scores = measure_fidelity(Repeated(images), data.test, real=data.train)
    recorded = {f"test_{name}": value for name, value in scores.items()}
    assert all(each.is_met(recorded[each.metric]) for each in GAN_THRESHOLDS if each.metric in recorded)
    assert scores["density"] == pytest.approx(1, abs=0.1)
