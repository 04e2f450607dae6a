"""Training is reproducible, and writes everything that export reads."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.keras_models.backend import import_keras
from training.keras_models.fitting import train
from training.keras_models.models import KERAS_RECIPES
from training.recipe import Data, Split


def few(data: Data) -> Data:
    """The first items of each split."""

    def cut(split: Split) -> Split:
        return Split(inputs={name: array[:16] for name, array in split.inputs.items()}, targets=split.targets[:16])

    return replace(data, train=cut(data.train), validation=cut(data.validation), test=cut(data.test))


@pytest.mark.parametrize("name", KERAS_RECIPES)
def test_same_seed_gives_the_same_weights(name: str, tmp_path: Path) -> None:
    recipe = KERAS_RECIPES[name]
    data = few(recipe.load(None))
    models: list[Any] = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        metrics = train(recipe, data, folder, epochs=1)
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        assert 0 <= metrics["test_accuracy"] <= 1
        models.append(import_keras().saving.load_model(folder / "model.keras", compile=False))
    for first, second in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy())
