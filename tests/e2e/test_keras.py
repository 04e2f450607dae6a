"""Answers of the Keras models over HTTP equal those of Keras, which runs here on the model's own file."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from export.sources.keras.loading import load_model
from export.sources.keras.reference import run_keras
from training.keras_models.files import EXAMPLES, MODEL
from training.keras_models.models import HIDDEN

NUM_ITEMS = 60


def trained(name: str, runs: Path, bundles: Path) -> tuple[Any, dict[str, Any]]:
    """The Keras model and its first examples."""
    if not (bundles / name / "current").exists() or not (runs / name / MODEL).exists():
        pytest.skip(f"{name} has no bundle or no run here: make export")
    arrays = load_file(runs / name / EXAMPLES)
    return load_model(runs / name / MODEL), {key: array[:NUM_ITEMS] for key, array in arrays.items()}


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


def test_digits_get_the_labels_that_keras_gives_them(http: httpx.Client, runs: Path, bundles: Path) -> None:
    model, items = trained("keras-mlp", runs, bundles)
    predictions = post(http, "/classify", {"model": "keras-mlp", "images": items["images"].tolist()})
    [expected] = run_keras(model, [items["images"]])
    assert [one["label"] for one in predictions] == [str(label) for label in expected.argmax(-1)]
    np.testing.assert_allclose([one["probability"] for one in predictions], expected.max(-1), atol=1e-5)


def test_series_in_two_calls_with_the_state_get_what_keras_gives_them(
    http: httpx.Client, runs: Path, bundles: Path
) -> None:
    model, items = trained("keras-lstm", runs, bundles)
    zeros = np.zeros((NUM_ITEMS, HIDDEN), np.float32)
    expected, *_ = run_keras(model, [items["series"], zeros, zeros], items["lengths"])
    for row in range(0, NUM_ITEMS, 7):
        length = int(items["lengths"][row])
        steps = items["series"][row, :length].tolist()
        [first] = post(http, "/sequence-predict", {"model": "keras-lstm", "sequences": [steps[:3]]})
        body = {"model": "keras-lstm", "sequences": [steps[3:]], "states": [first["state"]]}
        [last] = post(http, "/sequence-predict", body)
        answers, reference_TL = [*first["steps"], *last["steps"]], expected[row, :length]
        assert [step["label"] for step in answers] == [f"speaker {label + 1}" for label in reference_TL.argmax(-1)]
        np.testing.assert_allclose([step["probability"] for step in answers], reference_TL.max(-1), atol=1e-4)
