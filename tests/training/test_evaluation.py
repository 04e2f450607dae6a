from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.training.tiny import RECIPES
from training.evaluation import evaluate, evaluate_each, model_predictor
from training.recipe import Split


def test_scores_do_not_depend_on_batch_size() -> None:
    targets = np.arange(10) % 3
    split = Split(inputs={"images": np.arange(10, dtype=np.uint8)[:, None, None]}, targets=targets)

    def predict(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        predicted = inputs["images"].flatten().long() % 2
        return {"logits": torch.nn.functional.one_hot(predicted, 3) * 5.0}

    expected = (np.arange(10) % 2 == targets).mean()
    whole, batched = (evaluate("image-classifier", predict, split, batch_size=size) for size in (10, 3))
    assert whole["accuracy"] == batched["accuracy"] == pytest.approx(expected)
    assert whole["loss"] == pytest.approx(batched["loss"])


def test_nats_per_character_divides_by_text_length() -> None:
    split = Split(inputs={"ids": np.zeros((2, 3), np.int64)}, targets=np.zeros((2, 3), np.int64), texts=("x" * 12,))
    scores = evaluate("language-model", lambda inputs: {"logits": torch.zeros(*inputs["ids"].shape, 4)}, split)
    assert scores["loss"] == pytest.approx(np.log(4))
    assert scores["nats_per_character"] == pytest.approx(np.log(4) / 2)


def test_image_generator_has_no_scores() -> None:
    split = Split(inputs={"latents": np.zeros((2, 100), np.float32)}, targets=np.zeros(0, np.int64))
    assert evaluate("image-generator", lambda _: {}, split) == {}


def test_model_predictor_evaluates_untrained_model() -> None:
    recipe = RECIPES["tiny-tagger"]
    data = recipe.load(None)
    model = recipe.build(**data.config).eval()
    scores = evaluate(
        recipe.family, model_predictor(recipe.family, model, torch.device("cpu")), data.test, batch_size=7
    )
    assert set(scores) == {"loss", "accuracy", "step_accuracy"}
    assert scores["loss"] == pytest.approx(np.log(2), rel=0.3)


def test_every_predictor_gets_each_batch_in_turn() -> None:
    split = Split(inputs={"images": np.zeros((5, 1, 1), np.uint8)}, targets=np.array([0, 1, 0, 1, 0]))
    calls: list[tuple[int, int]] = []

    def predictor(label: int) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
        def predict(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            calls.append((label, len(inputs["images"])))
            logits = torch.zeros(len(inputs["images"]), 2)
            logits[:, label] = 1
            return {"logits": logits}

        return predict

    scores = evaluate_each("image-classifier", [predictor(0), predictor(1)], split, batch_size=3)
    assert [each["accuracy"] for each in scores] == [3 / 5, 2 / 5]
    assert calls == [(0, 3), (1, 3), (0, 2), (1, 2)]
    assert evaluate_each("image-generator", [predictor(0)] * 3, split) == [{}, {}, {}]
