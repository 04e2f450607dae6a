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
    """Images of ten labels, well separated in pixel space, with noise of 40 levels."""
    targets = np.arange(400) % 10
    images = RNG.integers(0, 40, (400, 6, 6), np.uint8)
    images[np.arange(400), targets % 5, 3 * (targets // 5)] += 200
    return Split(inputs={"images": images}, targets=targets)


def latents(count: int) -> Split:
    return Split(inputs={"latents": np.zeros((count, 100), np.float32)}, targets=np.zeros(0, np.int64))


def test_copies_of_real_images_score_perfectly() -> None:
    real = real_split()
    scores = measure_fidelity(FixedImages(real.inputs["images"]), latents(400), real=real)
    assert (scores["precision"], scores["recall"], scores["coverage"]) == (1.0, 1.0, 1.0)
    assert (scores["rarest_label"], scores["commonest_label"]) == (0.1, 0.1)


def test_scores_of_points_on_a_line() -> None:
    """Real images at 0, 10, ..., 90, generated ones at 20 and 21; by hand, with 5 neighbours."""
    real = np.zeros((10, 2, 2), np.uint8)
    real[:, 0, 0] = np.arange(0, 100, 10)
    fake = np.zeros((8, 2, 2), np.uint8)
    fake[:, 0, 0] = [20, 21, 20, 21, 20, 21, 20, 200]
    split = Split(inputs={"images": real}, targets=np.arange(10) % 2)
    scores = measure_fidelity(FixedImages(fake), latents(8), real=split)
    # The distances of the real images to their fifth neighbour are 50, 40, 30, 30, 30, 30, 30, 30, 40, 50: 20 is in the
    # reach of those at 0 to 50, 21 of one less than 30 away and of those at 0 and 10; nothing reaches 200.
    assert scores["precision"] == pytest.approx(7 / 8)
    assert scores["coverage"] == pytest.approx(6 / 10)
    assert scores["density"] == pytest.approx((4 * 6 + 3 * 6) / 8 / 5)
    # Generated images at 20 and 21 reach 1, that at 200 reaches down to 20.
    assert scores["recall"] == pytest.approx(8 / 10)


def test_held_out_real_images_have_a_density_of_about_one() -> None:
    images = RNG.integers(0, 256, (800, 3, 3), np.uint8)
    real = Split(inputs={"images": images[:400]}, targets=np.arange(400) % 2)
    scores = measure_fidelity(FixedImages(images[400:]), latents(400), real=real)
    assert scores["density"] == pytest.approx(1, abs=0.1)
    assert scores["recall"] > 0.9


def test_ten_class_means_repeated_fail_coverage_and_recall() -> None:
    real = real_split()
    images, targets = real.inputs["images"], real.targets
    means = np.stack([images[targets == label].mean(0).round().astype(np.uint8) for label in range(10)])
    scores = measure_fidelity(FixedImages(means.repeat(40, 0)), latents(400), real=real)
    assert scores["precision"] == 1.0
    assert scores["recall"] == 0.0
    copies = measure_fidelity(FixedImages(images[:10].repeat(40, 0)), latents(400), real=real)
    assert copies["precision"] == 1.0
    assert copies["coverage"] < 0.2
    assert copies["recall"] < 0.05


def test_repeated_image_has_low_coverage_and_noise_low_precision() -> None:
    real = real_split()
    one = measure_fidelity(FixedImages(real.inputs["images"][:1].repeat(50, 0)), latents(50), real=real)
    assert one["precision"] == 1.0
    assert one["coverage"] < 0.1
    assert (one["rarest_label"], one["commonest_label"]) == (0.0, 1.0)
    noise = measure_fidelity(FixedImages(RNG.integers(0, 256, (50, 6, 6), np.uint8)), latents(50), real=real)
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
