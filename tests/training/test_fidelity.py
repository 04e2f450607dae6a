import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny import RECIPES
from training import fidelity as module
from training.checkpoint import load_run
from training.fidelity import classify_samples, generate_images, measure_fidelity
from training.recipe import Split

RNG = np.random.default_rng(0)


class FixedImages(nn.Module):
    """A fake model that generates the given images from any latents."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        self.samples = nn.Parameter(torch.from_numpy(images).float() / 127.5 - 1)

    def generator(self, latents: Tensor) -> Tensor:
        return self.samples[: len(latents)]


def real_split() -> Split:
    """Images of four labels, well separated in pixel space."""
    targets = np.arange(200) % 4
    images = RNG.integers(0, 20, (200, 4, 4), np.uint8)
    images[np.arange(200), targets, targets] += 200
    return Split(inputs={"images": images}, targets=targets)


def latents(count: int) -> Split:
    return Split(inputs={"latents": np.zeros((count, 100), np.float32)}, targets=np.zeros(0, np.int64))


def test_copies_of_real_images_score_perfectly() -> None:
    real = real_split()
    scores = measure_fidelity(FixedImages(real.inputs["images"]), latents(200), real=real)
    assert scores == {"precision": 1.0, "coverage": 1.0, "rarest_label": 0.25, "commonest_label": 0.25}


def test_repeated_image_has_low_coverage_and_noise_low_precision() -> None:
    real = real_split()
    one = measure_fidelity(FixedImages(real.inputs["images"][:1].repeat(50, 0)), latents(50), real=real)
    assert one["precision"] == 1.0
    assert one["coverage"] < 0.1
    assert (one["rarest_label"], one["commonest_label"]) == (0.0, 1.0)
    noise = measure_fidelity(FixedImages(RNG.integers(0, 256, (50, 4, 4), np.uint8)), latents(50), real=real)
    assert noise["precision"] == 0.0


def test_classify_samples_returns_shares_of_the_classifier(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gan, classifier = load_run(train("tiny-gan"), RECIPES), load_run(train("tiny-images"), RECIPES)
    small = FixedImages(classifier.test.inputs["images"])
    object.__setattr__(gan, "model", small)
    confident, shares = classify_samples(gan, classifier)
    with torch.no_grad():
        probabilities = classifier.model(generate_images(small, gan.test)).softmax(-1)
    assert confident == pytest.approx((probabilities.max(-1).values >= 0.9).double().mean().item())
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["north-west"] == pytest.approx((probabilities.argmax(-1) == 0).double().mean().item())

    monkeypatch.setattr(module, "load_run", lambda folder: gan if folder == gan.folder else classifier)
    monkeypatch.setattr(sys, "argv", ["fidelity", str(gan.folder), str(classifier.folder)])
    assert module.main() == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"confident (>= 0.9): {confident:.1%}; north-west: ")


def test_missing_run_prints_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fidelity", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit) as exited:
        module.main()
    assert exited.value.code == 1
    assert capsys.readouterr().err == f"{tmp_path}: there is no checkpoint.json: the folder holds no run\n"
