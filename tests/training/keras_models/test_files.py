"""The folder of a Keras model: its examples and its spec."""

import tomllib

import numpy as np

from training.keras_models.files import examples, spec_text
from training.keras_models.models import KERAS_RECIPES
from training.recipe import Split


def test_spec_names_the_data_and_every_label() -> None:
    recipe = KERAS_RECIPES["keras-lstm"]
    data = recipe.load(None)
    spec = tomllib.loads(spec_text(recipe, data))
    assert (spec["name"], spec["dataset"], spec["note"]) == ("keras-lstm", data.name, data.note)
    assert tuple(spec["head"]["labels"]) == data.labels
    assert spec["reader"]["state"] == {"layers": 1, "hidden": 64}


def test_steps_behind_the_end_of_a_row_have_no_target() -> None:
    inputs = {"series": np.zeros((2, 3, 1), np.float32), "lengths": np.array([3, 1])}
    arrays = examples(Split(inputs=inputs, targets=np.array([4, 5])))
    assert arrays["targets"].tolist() == [[4, 4, 4], [5, -100, -100]]
    pixels = Split(inputs={"images": np.zeros((2, 2, 2), np.uint8)}, targets=np.array([4, 5]))
    assert examples(pixels)["targets"].tolist() == [4, 5]
