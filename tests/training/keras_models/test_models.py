"""The registry of Keras models: architecture, inputs and targets, and the contract in the spec."""

import numpy as np
import pytest

from training.keras_models.models import HIDDEN, KERAS_RECIPES, KerasRecipe


@pytest.fixture(params=KERAS_RECIPES)
def recipe(request: pytest.FixtureRequest) -> KerasRecipe:
    return KERAS_RECIPES[request.param]


def test_names_are_those_of_the_registry(recipe: KerasRecipe) -> None:
    assert KERAS_RECIPES[recipe.name] is recipe


def test_training_model_and_saved_model_share_their_layers(recipe: KerasRecipe) -> None:
    data = recipe.load(None)
    model, saved = recipe.build(data)
    assert {id(weight) for weight in saved.weights} == {id(weight) for weight in model.weights}
    inputs, targets, weights = recipe.arrays(data.test)
    assert (
        len(inputs if isinstance(inputs, np.ndarray) else inputs[0]) == len(targets) == len(weights) == len(data.test)
    )


def test_mlp_has_one_hidden_layer_of_128() -> None:
    recipe = KERAS_RECIPES["keras-mlp"]
    model, _ = recipe.build(recipe.load(None))
    assert [tuple(weight.shape) for weight in model.weights if "seed" not in weight.path] == [
        (784, 128),
        (128,),
        (128, 10),
        (10,),
    ]


def test_lstm_takes_and_gives_its_state_and_only_steps_of_a_row_count() -> None:
    recipe = KERAS_RECIPES["keras-lstm"]
    data = recipe.load(None)
    _, saved = recipe.build(data)
    assert [tensor.shape for tensor in saved.inputs] == [(None, None, 12), (None, HIDDEN), (None, HIDDEN)]
    assert [tensor.shape for tensor in saved.outputs] == [(None, None, 9), (None, HIDDEN), (None, HIDDEN)]
    _, _, weights = recipe.arrays(data.test)
    np.testing.assert_array_equal(weights.sum(1), data.test.inputs["lengths"])
