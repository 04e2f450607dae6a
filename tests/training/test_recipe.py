from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from tests.training.tiny import RECIPES
from training.recipe import Split


def test_a_split_counts_items_whatever_their_kind() -> None:
    assert len(Split(inputs={"latents": np.zeros((7, 3))}, targets=np.zeros(0, np.int64))) == 7


def test_recipes_are_values() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["tiny-plain"].steps = 3
