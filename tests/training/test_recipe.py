from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from tests.training.tiny import RECIPES
from training.recipe import Split


def test_a_split_counts_items_whatever_their_kind() -> None:
    assert len(Split(inputs={"latents": np.zeros((7, 3))}, targets=np.zeros(0, np.int64))) == 7


def test_recipes_are_values() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["tiny-plain"].steps = 3


@pytest.mark.parametrize("name", ["under_score", "Capital", "", "two--hyphens", "tail-", "new\n", "ünder", "a" * 65])
def test_a_name_that_no_bundle_can_have_is_refused_before_training(name: str) -> None:
    with pytest.raises(ValueError, match="a name is small letters, digits and hyphens"):
        replace(RECIPES["tiny-plain"], name=name)


def test_a_family_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no family 'image'; there are image-classifier, "):
        replace(RECIPES["tiny-plain"], family="image")


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("target", [-1, 99])
def test_a_target_that_is_no_label_is_refused_before_training(part: str, target: int) -> None:
    data = RECIPES["tiny-plain"].load(None)
    split = getattr(data, part)
    targets = split.targets.copy()
    targets[5] = target
    with pytest.raises(ValueError, match=f"a target of the {part} split is {target}, labels are 0 to "):
        replace(data, **{part: replace(split, targets=targets)})


def test_labels_that_repeat_are_refused() -> None:
    data = RECIPES["tiny-plain"].load(None)
    with pytest.raises(ValueError, match="two labels are the same"):
        replace(data, labels=(data.labels[0], *data.labels[:-1]))


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_split_that_is_empty_or_lacks_targets_is_refused(part: str) -> None:
    data = RECIPES["tiny-plain"].load(None)
    split = getattr(data, part)
    empty = Split(inputs={name: array[:0] for name, array in split.inputs.items()}, targets=split.targets[:0])
    with pytest.raises(ValueError, match=f"the {part} split is empty"):
        replace(data, **{part: empty})
    with pytest.raises(ValueError, match=f"the {part} split has {len(split)} items and 3 targets"):
        replace(data, **{part: replace(split, targets=split.targets[:3])})


@pytest.mark.parametrize("name", ["tiny-series", "tiny-tagger", "tiny-language"])
def test_items_with_steps_need_a_limit(name: str) -> None:
    with pytest.raises(ValueError, match=f"a {RECIPES[name].family} needs max_steps"):
        replace(RECIPES[name], max_steps=None)


@pytest.mark.parametrize("field", ["batch_size", "steps", "steps_real", "evaluations", "max_items", "max_steps"])
def test_what_is_counted_is_at_least_one(field: str) -> None:
    assert replace(RECIPES["tiny-series"], **{field: 1})
    with pytest.raises(ValueError, match=f"recipe 'tiny-series': {field} is 0, expected 1 or more"):
        replace(RECIPES["tiny-series"], **{field: 0})


@pytest.mark.parametrize(
    "value", [np.float32(0.3), [np.float32(0.3)], np.array([0.3])], ids=["number", "list", "array"]
)
def test_a_config_that_no_checkpoint_can_hold_is_refused_before_training(value: object) -> None:
    data = RECIPES["tiny-plain"].load(None)
    with pytest.raises(ValueError, match=r"config\['mean'\] cannot be written as JSON: .*\.tolist\(\)"):
        replace(data, config={**data.config, "mean": value})
