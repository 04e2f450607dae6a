"""The documented fields of predictions are those that the heads answer."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.tasks.heads import HEADS
from service.tasks.heads.predictions import Prediction
from tests.service.pairs import ALL_PAIRS, PAIRS

ADAPTER: TypeAdapter[Any] = TypeAdapter(Prediction)


@pytest.mark.parametrize("name", PAIRS)
def test_a_prediction_is_one_of_the_documented_kinds(name: str, *, predict_pair: Callable[..., Any]) -> None:
    for prediction in predict_pair(name, **ALL_PAIRS[name].fields):
        parsed = ADAPTER.validate_python(prediction)
        assert parsed.model_dump(exclude_none=True) == prediction
        if ALL_PAIRS[name].reader["kind"] != "series":
            assert isinstance(parsed, HEADS[ALL_PAIRS[name].head["kind"]].prediction)
