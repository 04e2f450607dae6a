from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from tests.training.tiny import RECIPES
from training.recipe import Split


def test_split_length_is_number_of_items() -> None:
    assert len(Split(inputs={"latents": np.zeros((7, 3))}, targets=np.zeros(0, np.int64))) == 7


def test_recipe_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["tiny-baseline"].steps = 3


@pytest.mark.parametrize("name", ["under_score", "Capital", "", "two--hyphens", "tail-", "new\n", "ünder", "a" * 65])
def test_recipe_refuses_name_that_is_invalid_for_bundle(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name of lowercase letters, digits and hyphens"):
        replace(RECIPES["tiny-baseline"], name=name)


def test_recipe_refuses_unknown_family() -> None:
    with pytest.raises(ValueError, match="unknown family 'image'; known are image-classifier, "):
        replace(RECIPES["tiny-baseline"], family="image")


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("target", [-1, 99])
def test_data_refuses_target_that_is_not_a_label(part: str, target: int) -> None:
    data = RECIPES["tiny-baseline"].load(None)
    split = getattr(data, part)
    targets = split.targets.copy()
    targets[5] = target
    with pytest.raises(ValueError, match=f"a target of the {part} split is {target}, labels are 0 to "):
        replace(data, **{part: replace(split, targets=targets)})


def test_data_refuses_duplicate_labels() -> None:
    data = RECIPES["tiny-baseline"].load(None)
    with pytest.raises(ValueError, match="two labels are equal"):
        replace(data, labels=(data.labels[0], *data.labels[:-1]))


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_data_refuses_empty_split_and_missing_targets(part: str) -> None:
    data = RECIPES["tiny-baseline"].load(None)
    split = getattr(data, part)
    empty = Split(inputs={name: array[:0] for name, array in split.inputs.items()}, targets=split.targets[:0])
    with pytest.raises(ValueError, match=f"the {part} split is empty"):
        replace(data, **{part: empty})
    with pytest.raises(ValueError, match=f"the {part} split has {len(split)} items and 3 targets"):
        replace(data, **{part: replace(split, targets=split.targets[:3])})


@pytest.mark.parametrize("name", ["tiny-series", "tiny-tagger", "tiny-language"])
def test_recipe_requires_max_steps_for_items_with_steps(name: str) -> None:
    with pytest.raises(ValueError, match=f"a {RECIPES[name].family} needs max_steps"):
        replace(RECIPES[name], max_steps=None)


@pytest.mark.parametrize("field", ["batch_size", "steps", "steps_real", "evaluations", "max_items", "max_steps"])
def test_recipe_refuses_counts_below_one(field: str) -> None:
    assert replace(RECIPES["tiny-series"], **{field: 1})
    with pytest.raises(ValueError, match=f"recipe 'tiny-series': {field} is 0, expected 1 or more"):
        replace(RECIPES["tiny-series"], **{field: 0})


@pytest.mark.parametrize(
    "value", [np.float32(0.3), [np.float32(0.3)], np.array([0.3])], ids=["number", "list", "array"]
)
def test_data_refuses_config_that_json_cannot_hold(value: object) -> None:
    data = RECIPES["tiny-baseline"].load(None)
    with pytest.raises(ValueError, match=r"config\['mean'\] cannot be written as JSON: .*\.tolist\(\)"):
        replace(data, config={**data.config, "mean": value})
