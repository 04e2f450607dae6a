"""The registry of Keras models. They come into the service as models from elsewhere do, by `python -m export keras`.

A model takes the raw items of its data set and has its preprocessing as its first layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data import mnist, vowels
from training.keras_models.backend import import_keras
from training.recipe import Data, Split

# One array for each input of the training model; of one input the array itself.
Arrays = npt.NDArray[Any] | list[npt.NDArray[Any]]
HIDDEN = 64
MAX_STEPS = 128


@dataclass(frozen=True, kw_only=True)
class KerasRecipe:
    """One Keras model.

    `build` makes the model to train and the model to save, which share their layers. `arrays` makes the training
    model's inputs, targets and sample weights of a split. `spec` is the reader, head and limits of its spec.toml.
    """

    name: str
    summary: str
    load: Callable[[Any], Data]
    build: Callable[[Data], tuple[Any, Any]]
    arrays: Callable[[Split], tuple[Arrays, npt.NDArray[Any], npt.NDArray[np.float32]]]
    spec: Callable[[Data], Mapping[str, Mapping[str, Any]]]
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3


def _build_mlp(_: Data) -> tuple[Any, Any]:
    keras = import_keras()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8", name="images"),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return model, model


def _mlp_arrays(split: Split) -> tuple[Arrays, npt.NDArray[Any], npt.NDArray[np.float32]]:
    return split.inputs["images"], split.targets, np.ones(len(split), np.float32)


def _mlp_spec(data: Data) -> Mapping[str, Mapping[str, Any]]:
    return {
        "reader": {"kind": "image", "height": 28, "width": 28, "mode": "L", "layout": "NHW", "scale": 1.0},
        "head": {"kind": "labels", "labels": list(data.labels), "activation": "none"},
    }


def _build_lstm(data: Data) -> tuple[Any, Any]:
    """An LSTM that takes h and c, and gives its answer at every step and its state after the last one."""
    keras = import_keras()
    layers, config = keras.layers, data.config
    series = keras.Input((None, config["channels"]), name="series")
    state = [keras.Input((HIDDEN,), name=name) for name in ("h", "c")]
    scaled = layers.Normalization(mean=config["mean"], variance=[std**2 for std in config["std"]])(series)
    sequence, *next_state = layers.LSTM(HIDDEN, return_sequences=True, return_state=True)(scaled, initial_state=state)
    answers = layers.Dense(config["labels"], activation="softmax")(layers.Dropout(0.3)(sequence))
    inputs = [series, *state]
    return keras.Model(inputs, answers), keras.Model(inputs, [answers, *next_state])


def _lstm_arrays(split: Split) -> tuple[Arrays, npt.NDArray[Any], npt.NDArray[np.float32]]:
    series, lengths = split.inputs["series"], split.inputs["lengths"]
    steps = np.arange(series.shape[1])
    state = [np.zeros((len(split), HIDDEN), np.float32)] * 2
    targets = np.broadcast_to(split.targets[:, None], series.shape[:2])
    # Only the steps before a row's end have a target.
    return [series, *state], targets, (steps < lengths[:, None]).astype(np.float32)


def _lstm_spec(data: Data) -> Mapping[str, Mapping[str, Any]]:
    return {
        "reader": {
            "kind": "series",
            "channels": data.config["channels"],
            "state": {"layers": 1, "hidden": HIDDEN},
        },
        "head": {"kind": "token-labels", "labels": list(data.labels), "activation": "none"},
        "limits": {"max_steps": MAX_STEPS},
    }


KERAS_RECIPES: dict[str, KerasRecipe] = {
    "keras-mlp": KerasRecipe(
        name="keras-mlp",
        summary="Classifies images of handwritten digits with one hidden layer, 784-128-10, trained in Keras.",
        load=mnist.load,
        build=_build_mlp,
        arrays=_mlp_arrays,
        spec=_mlp_spec,
        epochs=20,
        batch_size=128,
        learning_rate=2e-3,
    ),
    "keras-lstm": KerasRecipe(
        name="keras-lstm",
        summary="Identifies nine speakers while they speak: a Keras LSTM that gives its outputs and its state.",
        load=vowels.load,
        build=_build_lstm,
        arrays=_lstm_arrays,
        spec=_lstm_spec,
        epochs=60,
        batch_size=32,
        learning_rate=3e-3,
    ),
}
