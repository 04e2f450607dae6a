"""The model that was asked for, and no more items than it takes."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.limits import ENDPOINTS, check_items, check_unused, find


class Shelf:
    """What `find` needs of a repository."""

    def __init__(self, models: dict[str, Model]) -> None:
        self._models = {model.manifest.name: model for model in models.values()}

    def get(self, name: str) -> Model:
        if name == "tiny-late":
            raise EkibenError("not-ready", "tiny-late is LOADING")
        if name not in self._models:
            raise EkibenError("unknown-model", "no")
        return self._models[name]

    def list_models(self) -> list[dict[str, Any]]:
        rows = [{"name": name, "task": model.manifest.task} for name, model in self._models.items()]
        return [*rows, {"name": "tiny-late", "task": None}]


@pytest.fixture
def shelf(models: dict[str, Model]) -> Any:
    return Shelf(models)


def test_a_model_is_found_by_name_and_task(shelf: Any, models: dict[str, Model]) -> None:
    assert find(shelf, "tiny-images", "classify") is models["image-classifier"]


def test_an_unknown_name_lists_the_models_of_the_task(shelf: Any) -> None:
    with pytest.raises(EkibenError) as caught:
        find(shelf, "x" * 100, "generate")
    assert caught.value.slug == "unknown-model"
    [fault] = caught.value.faults
    assert fault.pointer == "/model"
    assert fault.detail == "expected one of tiny-letters, tiny-pictures, tiny-late, got a string of 100 characters"


def test_a_model_of_another_task_names_its_endpoint(shelf: Any) -> None:
    with pytest.raises(EkibenError, match="tiny-tags is a sequence-predict model: ask /sequence-predict") as caught:
        find(shelf, "tiny-tags", "classify")
    assert caught.value.slug == "wrong-task"


def test_a_model_that_is_not_ready_is_not_unknown(shelf: Any) -> None:
    with pytest.raises(EkibenError) as caught:
        find(shelf, "tiny-late", "classify")
    assert caught.value.slug == "not-ready"


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_and_too_many_items(count: int, models: dict[str, Model]) -> None:
    with pytest.raises(EkibenError, match="/texts: expected 1 to 8 items"):
        check_items(["a"] * count, models["text-classifier"].manifest, "/texts")
    check_items(["a"] * 8, models["text-classifier"].manifest, "/texts")


def test_fields_without_use_are_refused() -> None:
    manifest: Any = SimpleNamespace(name="m")
    with pytest.raises(EkibenError, match="/states: not a field for m, which takes `texts`"):
        check_unused(["sequences", "states"], {"model", "states"}, manifest, "`texts`")
    check_unused(["sequences"], {"model", "states"}, manifest, "`texts`")


def test_every_task_has_an_endpoint() -> None:
    assert len(set(ENDPOINTS.values())) == len(ENDPOINTS) == 3
