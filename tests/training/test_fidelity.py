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
from training.fidelity import fidelity, generated, verdict
from training.recipe import Split

RNG = np.random.default_rng(0)


class Copycat(nn.Module):
    """'Generates' the images that it is made with, whatever the latents."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        self.samples = nn.Parameter(torch.from_numpy(images).float() / 127.5 - 1)

    def generator(self, latents: Tensor) -> Tensor:
        return self.samples[: len(latents)]


def real_split() -> Split:
    """Four labels, each a cloud around its own corner of the images' space."""
    targets = np.arange(200) % 4
    images = RNG.integers(0, 20, (200, 4, 4), np.uint8)
    images[np.arange(200), targets, targets] += 200
    return Split(inputs={"images": images}, targets=targets)


def latents(count: int) -> Split:
    return Split(inputs={"latents": np.zeros((count, 100), np.float32)}, targets=np.zeros(0, np.int64))


def test_copies_of_the_real_are_perfect() -> None:
    real = real_split()
    scores = fidelity(Copycat(real.inputs["images"]), latents(200), real=real)
    assert scores == {"precision": 1.0, "coverage": 1.0, "rarest_label": 0.25, "commonest_label": 0.25}


def test_a_generator_of_one_digit_covers_little_and_noise_is_not_precise() -> None:
    real = real_split()
    one = fidelity(Copycat(real.inputs["images"][:1].repeat(50, 0)), latents(50), real=real)
    assert one["precision"] == 1.0
    assert one["coverage"] < 0.1
    assert (one["rarest_label"], one["commonest_label"]) == (0.0, 1.0)
    noise = fidelity(Copycat(RNG.integers(0, 256, (50, 4, 4), np.uint8)), latents(50), real=real)
    assert noise["precision"] == 0.0


def test_the_verdict_is_the_classifiers(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, judge = load_run(train("tiny-gan"), RECIPES), load_run(train("tiny-images"), RECIPES)
    small = Copycat(judge.test.inputs["images"])
    object.__setattr__(maker, "model", small)
    sure, shares = verdict(maker, judge)
    with torch.no_grad():
        probabilities = judge.model(generated(small, maker.test)).softmax(-1)
    assert sure == pytest.approx((probabilities.max(-1).values >= 0.9).double().mean().item())
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["north-west"] == pytest.approx((probabilities.argmax(-1) == 0).double().mean().item())

    monkeypatch.setattr(module, "load_run", lambda folder: maker if folder == maker.folder else judge)
    monkeypatch.setattr(sys, "argv", ["fidelity", str(maker.folder), str(judge.folder)])
    assert module.main() == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"sure (>= 0.9) of {sure:.1%}; north-west: ")


def test_a_missing_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fidelity", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit) as exited:
        module.main()
    assert exited.value.code == 1
    assert capsys.readouterr().err == f"{tmp_path}: there is no checkpoint.json: no run is here\n"
