"""`resolve_model` returns the READY model of a name and task, or an error that helps the client."""

from typing import Any

import pytest

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.model_lookup import ENDPOINTS, resolve_model


class FakeRepository:
    """A repository with the given READY models and one model that is LOADING."""

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
def repository(models: dict[str, Model]) -> Any:
    return FakeRepository(models)


def test_model_is_resolved_by_name_and_task(repository: Any, models: dict[str, Model]) -> None:
    assert resolve_model(repository, "tiny-images", "classify") is models["image-classifier"]


def test_unknown_name_lists_the_models_of_the_task(repository: Any) -> None:
    with pytest.raises(EkibenError) as caught:
        resolve_model(repository, "x" * 100, "generate")
    assert caught.value.slug == "unknown-model"
    [fault] = caught.value.faults
    assert fault.pointer == "/model"
    assert fault.detail == "expected one of tiny-letters, tiny-pictures, tiny-late, got a string of 100 characters"


def test_unknown_name_says_that_the_task_has_no_model_yet(repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "list_models", list)
    with pytest.raises(EkibenError, match="no such model: got 'x'; this task has no model yet"):
        resolve_model(repository, "x", "generate")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-tags", "tiny-tags is a sequence-predict model: send the request to /sequence-predict, not /classify"),
        ("tiny-pictures", "tiny-pictures is a generate model: send the request to /generate, not /classify"),
    ],
)
def test_model_of_another_task_names_its_endpoint(repository: Any, name: str, message: str) -> None:
    with pytest.raises(EkibenError, match=message) as caught:
        resolve_model(repository, name, "classify")
    assert caught.value.slug == "wrong-task"
    assert [fault.pointer for fault in caught.value.faults] == ["/model"]


def test_loading_model_is_not_ready_rather_than_unknown(repository: Any) -> None:
    with pytest.raises(EkibenError) as caught:
        resolve_model(repository, "tiny-late", "classify")
    assert caught.value.slug == "not-ready"


def test_every_task_has_its_own_endpoint() -> None:
    assert len(set(ENDPOINTS.values())) == len(ENDPOINTS) == 4
