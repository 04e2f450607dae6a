"""Parameter counts and batching of the registered models; text models are in test_text_models."""

import pytest
import torch

from training.families import FAMILIES
from training.models import RECIPES, mnist_gan

GREY = {"mean": [0.5], "std": [0.5]}
COLOUR = {"mean": [0.5] * 3, "std": [0.5] * 3}
VOWELS = {"channels": 12, "labels": 9, "mean": [0.0] * 12, "std": [1.0] * 12}


def layer(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def lstm(inputs: int, hidden: int) -> int:
    return 4 * hidden * (inputs + hidden + 2)


def rnn(inputs: int, hidden: int) -> int:
    return hidden * (inputs + hidden + 2)


MODELS = {
    "mnist-mlp": (GREY, layer(784, 128) + layer(128, 10)),
    "mnist-cnn": (GREY, layer(25, 10) + layer(1440, 50) + layer(50, 10)),
    "cifar10-lenet5": (
        COLOUR,
        layer(3 * 25, 6) + layer(6 * 25, 16) + layer(400, 120) + layer(120, 84) + layer(84, 10),
    ),
    "cifar10-cnn": (COLOUR, layer(3 * 9, 32) + layer(32 * 9, 64) + layer(4096, 128) + layer(128, 10)),
    "vowels-rnn": (VOWELS, rnn(12, 50) + rnn(50, 50) + layer(50, 9)),
    "vowels-lstm": (VOWELS, lstm(12, 50) + lstm(50, 50) + layer(50, 9)),
    "vowels-lstm-stateful": (VOWELS, lstm(12, 64) + layer(64, 9)),
    "mnist-gan": (
        {},
        layer(100, 256) + layer(256, 512) + layer(512, 784) + 2 * (256 + 512)
        + layer(784, 512) + layer(512, 256) + layer(256, 1),
    ),
}  # fmt: skip


def inputs(family: str, size: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    series = {"series": torch.randn(3, 9, 12), "lengths": torch.tensor([9, 1, 5])}
    return {
        "image-classifier": {
            "images": torch.randint(0, 256, (3, size, size, 3)[: 3 + (size == 32)], dtype=torch.uint8)
        },
        "series-classifier": series,
        "series-tagger": series,
        "image-generator": {"latents": torch.randn(3, 100)},
    }[family]


@pytest.mark.parametrize("name", MODELS)
def test_number_of_parameters_matches_design(name: str) -> None:
    config, num_parameters = MODELS[name]
    assert sum(p.numel() for p in RECIPES[name].build(**config).parameters()) == num_parameters


@pytest.mark.parametrize("name", MODELS)
def test_row_alone_equals_row_in_batch(name: str) -> None:
    recipe = RECIPES[name]
    model = recipe.build(**MODELS[name][0]).eval()
    batch = inputs(recipe.family, 32 if name.startswith("cifar") else 28)
    batched = FAMILIES[recipe.family].predict(model, batch)
    for row in range(3):
        single = FAMILIES[recipe.family].predict(model, {key: value[row : row + 1] for key, value in batch.items()})
        for key, value in single.items():
            torch.testing.assert_close(value.double(), batched[key][row : row + 1].double(), atol=1.01e-5, rtol=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_registry_key_is_recipe_name_and_fields_are_set(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.summary.endswith(".")
    assert recipe.steps > 0
    assert recipe.steps_real > 0
    assert recipe.family in FAMILIES


def test_first_gan_latents_only_select_style() -> None:
    torch.manual_seed(0)
    generator = RECIPES["mnist-gan"].build().eval().generator
    latents = torch.randn(1, 100)
    style_latents = latents[0, : mnist_gan.NUM_STYLES]
    largest = int(style_latents.argmax())
    same, other = latents.clone(), latents.clone()
    same[0, largest] += 3
    other[0, (largest + 1) % mnist_gan.NUM_STYLES] = style_latents[largest] + 1
    varied = latents.clone()
    varied[0, mnist_gan.NUM_STYLES] += 1
    assert torch.equal(generator(latents), generator(same))
    assert not torch.allclose(generator(latents), generator(other), atol=1e-3)
    assert not torch.equal(generator(latents), generator(varied))
