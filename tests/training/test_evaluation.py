import numpy as np
import pytest
import torch

from tests.training.tiny import RECIPES
from training.evaluation import measure, on_device
from training.recipe import Split


def test_measures_are_means_over_items_whatever_the_batches() -> None:
    targets = np.arange(10) % 3
    split = Split(inputs={"images": np.arange(10, dtype=np.uint8)[:, None, None]}, targets=targets)

    def answer(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        guess = inputs["images"].flatten().long() % 2
        return {"logits": torch.nn.functional.one_hot(guess, 3) * 5.0}

    expected = (np.arange(10) % 2 == targets).mean()
    whole, cut = (measure("image-classifier", answer, split, batch_size=size) for size in (10, 3))
    assert whole["accuracy"] == cut["accuracy"] == pytest.approx(expected)
    assert whole["loss"] == pytest.approx(cut["loss"])


def test_nats_per_character_count_the_text() -> None:
    split = Split(inputs={"ids": np.zeros((2, 3), np.int64)}, targets=np.zeros((2, 3), np.int64), texts=("x" * 12,))
    scores = measure("language-model", lambda inputs: {"logits": torch.zeros(*inputs["ids"].shape, 4)}, split)
    assert scores["loss"] == pytest.approx(np.log(4))
    assert scores["nats_per_character"] == pytest.approx(np.log(4) / 2)


def test_a_generator_has_no_scores() -> None:
    split = Split(inputs={"latents": np.zeros((2, 100), np.float32)}, targets=np.zeros(0, np.int64))
    assert measure("image-generator", lambda _: {}, split) == {}


def test_the_models_own_answers() -> None:
    recipe = RECIPES["tiny-tagger"]
    data = recipe.load(None)
    model = recipe.build(**data.config).eval()
    scores = measure(recipe.family, on_device(recipe.family, model, torch.device("cpu")), data.test, batch_size=7)
    assert set(scores) == {"loss", "accuracy", "step_accuracy"}
    assert scores["loss"] == pytest.approx(np.log(2), rel=0.3)
