import numpy as np
import pytest
import torch
from torch import nn

from tests.training.tiny import RECIPES
from training.families import FAMILIES, with_initial_state
from training.recipe import IGNORE_INDEX, Recipe

SHAPES = {
    "tiny-images": {"logits": (3, 4), "probabilities": (3, 4)},
    "tiny-series": {"logits": (3, 2), "probabilities": (3, 2)},
    "tiny-tagger": {"logits": (3, 7, 2), "probabilities": (3, 7, 2), "next_h": (3, 1, 8), "next_c": (3, 1, 8)},
    "tiny-language": {"logits": (3, 5, 10)},
    "tiny-gan": {"samples": (3, 28, 28), "images": (3, 28, 28)},
}


def model_and_inputs(recipe: Recipe) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = recipe.build(**recipe.load(None).config).eval()
    series = {"series": torch.randn(3, 7, 3), "lengths": torch.tensor([7, 1, 4])}
    inputs = {
        "image-classifier": {"images": torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)},
        "series-classifier": series,
        "series-tagger": series,
        "language-model": {"ids": torch.randint(0, 10, (3, 5))},
        "image-generator": {"latents": torch.randn(3, 100)},
    }
    return model, inputs[recipe.family]


@pytest.mark.parametrize("name", SHAPES)
def test_predict_returns_outputs_with_names_and_shapes_of_the_family(name: str) -> None:
    recipe = RECIPES[name]
    model, inputs = model_and_inputs(recipe)
    outputs = FAMILIES[recipe.family].predict(model, inputs)
    assert tuple(outputs) == FAMILIES[recipe.family].outputs
    assert {key: tuple(value.shape) for key, value in outputs.items()} == SHAPES[name]
    if "probabilities" in outputs:
        logits = outputs["logits"].numpy().astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(outputs["probabilities"].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_float64_model_is_close_to_float32_model(name: str) -> None:
    recipe = RECIPES[name]
    model, inputs = model_and_inputs(recipe)
    single = FAMILIES[recipe.family].predict(model, inputs)
    double = FAMILIES[recipe.family].predict(model.double(), inputs)
    for key, value in double.items():
        assert value.dtype == (torch.uint8 if key == "images" else torch.float64)
        torch.testing.assert_close(single[key].double(), value.double(), atol=1e-5 + (key == "images"), rtol=1e-4)


def test_generated_images_are_samples_as_uint8() -> None:
    model, inputs = model_and_inputs(RECIPES["tiny-gan"])
    outputs = FAMILIES["image-generator"].predict(model, inputs)
    expected = np.rint((outputs["samples"].numpy() + 1) * 127.5)
    np.testing.assert_array_equal(outputs["images"].numpy(), expected.astype(np.uint8))


def test_tagger_starts_at_zero_state_and_continues_from_given_state() -> None:
    model, inputs = model_and_inputs(RECIPES["tiny-tagger"])
    predict = FAMILIES["series-tagger"].predict
    series, lengths = inputs["series"], torch.tensor([7, 7, 7])
    whole = predict(model, {"series": series, "lengths": lengths})
    first = predict(model, {"series": series[:, :3], "lengths": lengths - 4})
    rest = predict(model, {"series": series[:, 3:], "lengths": lengths - 3, "h": first["next_h"], "c": first["next_c"]})
    torch.testing.assert_close(torch.cat([first["logits"], rest["logits"]], 1), whole["logits"])
    torch.testing.assert_close(rest["next_c"], whole["next_c"])
    zeros = with_initial_state(model, inputs)
    assert zeros["h"].shape == (3, 1, 8)
    assert not zeros["h"].any()
    assert not zeros["c"].any()


def test_classifier_scores_are_summed_loss_and_hits() -> None:
    logits, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1, 1])
    scores = FAMILIES["image-classifier"].scores({"logits": logits}, {}, targets)
    loss = np.log1p(np.exp(-2)) + np.log1p(np.exp(-1)) + np.log1p(np.exp(3))
    assert scores["accuracy"] == (2, 3)
    assert scores["loss"][0] == pytest.approx(loss, rel=1e-6)


def test_tagger_scores_skip_padding_and_accuracy_counts_last_step() -> None:
    correct, invalid_inputs = [4.0, 0.0], [0.0, 4.0]
    logits = torch.tensor([[correct, invalid_inputs, correct], [correct, invalid_inputs, correct]])
    inputs = {"series": torch.zeros(2, 3, 1), "lengths": torch.tensor([3, 2])}
    scores = FAMILIES["series-tagger"].scores({"logits": logits}, inputs, torch.tensor([0, 0]))
    assert scores["accuracy"] == (1, 2)
    assert scores["step_accuracy"] == (3, 5)
    assert scores["loss"][0] == pytest.approx(3 * np.log1p(np.exp(-4)) + 2 * np.log1p(np.exp(4)), rel=1e-5)


def test_language_scores_skip_ignored_targets() -> None:
    logits = torch.tensor([[[4.0, 0.0], [4.0, 0.0]]])
    scores = FAMILIES["language-model"].scores({"logits": logits}, {}, torch.tensor([[1, IGNORE_INDEX]]))
    assert scores["accuracy"] == (0, 1)
    assert scores["loss"][0] == pytest.approx(np.log1p(np.exp(4)), rel=1e-5)


def test_tagger_loss_ignores_padding() -> None:
    model, inputs = model_and_inputs(RECIPES["tiny-tagger"])
    loss = FAMILIES["series-tagger"].loss
    targets = torch.tensor([0, 1, 1])
    longer = {**inputs, "series": torch.cat([inputs["series"], torch.full((3, 4, 3), 1e3)], 1)}
    torch.testing.assert_close(loss(model, inputs, targets, 0.1), loss(model, longer, targets, 0.1))
