"""Training of a Keras model: one seed, one thread, the best epoch on the validation split."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.keras_models.backend import import_keras
from training.keras_models.files import write_folder
from training.keras_models.models import KerasRecipe
from training.recipe import Data, Split

PATIENCE = 10


def train(
    recipe: KerasRecipe, data: Data, folder: Path, *, seed: int = 0, epochs: int | None = None
) -> dict[str, float]:
    """Train a model on `data`, write its folder, and return its metrics on the test split."""
    torch.set_num_threads(1)
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    with keras.device("cpu"):
        model, saved = recipe.build(data)
        model.compile(optimizer=keras.optimizers.Adam(recipe.learning_rate), loss="sparse_categorical_crossentropy")
        inputs, targets, weights = recipe.arrays(data.train)
        model.fit(
            inputs,
            targets,
            sample_weight=weights,
            validation_data=recipe.arrays(data.validation),
            batch_size=recipe.batch_size,
            epochs=epochs or recipe.epochs,
            callbacks=[keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True)],
            verbose=0,
        )
        metrics = {"test_accuracy": accuracy(recipe, model, data.test)}
        write_folder(folder, recipe, data, saved, metrics)
    return metrics


def accuracy(recipe: KerasRecipe, model: Any, split: Split) -> float:
    """The share of items, or of their steps, that get their label."""
    inputs, targets, weights = recipe.arrays(split)
    predicted = np.asarray(model.predict(inputs, batch_size=256, verbose=0)).argmax(-1)
    return float(((predicted == targets) * weights).sum() / weights.sum())
