"""Rows share a batch only if their inputs have the same shapes."""

import numpy as np

from export.gates.coverage.row import Row


def test_rows_of_equal_shapes_have_equal_keys() -> None:
    first, same, longer = (Row(name="", inputs={"ids": np.zeros(steps)}) for steps in (3, 3, 4))
    assert first.is_extreme is False
    assert first.key == same.key != longer.key
    assert first.key != Row(name="", inputs=first.inputs, is_extreme=True).key
