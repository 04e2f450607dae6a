"""Requests have at most as many items as the model accepts, and no fields that it does not use."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.request_limits import check_items, check_unused_fields


@pytest.mark.parametrize("count", [0, 9])
def test_check_items_refuses_too_few_and_too_many_items(count: int, models: dict[str, Model]) -> None:
    with pytest.raises(EkibenError, match="/texts: expected 1 to 8 items"):
        check_items(["a"] * count, models["text-classifier"].manifest, "/texts")
    check_items(["a"] * 8, models["text-classifier"].manifest, "/texts")


def test_check_unused_fields_refuses_fields_that_the_model_does_not_use() -> None:
    manifest: Any = SimpleNamespace(name="m")
    with pytest.raises(EkibenError, match="/states: not a field for m, which takes `texts`"):
        check_unused_fields(["sequences", "states"], {"model", "states"}, manifest, "`texts`")
    check_unused_fields(["sequences"], {"model", "states"}, manifest, "`texts`")
