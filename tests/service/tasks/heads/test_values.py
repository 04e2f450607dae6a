"""Values have the names of the model."""

import numpy as np

from service.engine.sessions.model import Model
from service.tasks.heads.values import answers
from service.tasks.readers.payload import Group


def test_values_are_named_and_not_rounded(pair_models: dict[str, Model]) -> None:
    values = np.array([[0.1, -3], [2, 1e30]], np.float32)
    rows = answers(pair_models["tiny-prices"].manifest, {"values": values}, Group({}, range(2)), {})
    assert rows == [
        {"values": {"rent": float(np.float32(0.1)), "area": -3}},
        {"values": {"rent": 2, "area": float(np.float32(1e30))}},
    ]
