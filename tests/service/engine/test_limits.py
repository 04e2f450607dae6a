"""What the settings say by default is what the engine holds to by default."""

import pytest
from pydantic import ValidationError

from service.engine.limits import INLINE_BUDGET_S, Limits
from service.settings import Settings


def test_the_defaults_are_said_once_in_effect() -> None:
    assert Settings.model_construct().limits == Limits()


def test_the_largest_batch_is_of_1024_rows() -> None:
    assert Settings(max_batch_items=1024).limits.max_batch_items == 1024
    with pytest.raises(ValidationError, match="less than or equal to 1024"):
        Settings(max_batch_items=1025)


def test_an_event_loop_is_held_up_for_milliseconds() -> None:
    assert 0 < INLINE_BUDGET_S < 0.01


def test_a_part_of_a_batch_may_be_padding() -> None:
    assert 0 < Limits().max_waste < 1
