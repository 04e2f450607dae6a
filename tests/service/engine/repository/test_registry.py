"""Tests of the registry of models and of the readiness of the service."""

from dataclasses import replace

import pytest

from service.engine.repository.registry import ModelRegistry, ReadyWhen
from service.errors import EkibenError
from tests.service.engine.repository.test_entry import version


@pytest.fixture
def registry() -> ModelRegistry:
    """One model is READY and one still LOADING; both are required."""
    registry = ModelRegistry("not scanned yet")
    for name in ("b", "a"):
        registry.add(name, required=True)
    registry.update("a", lambda entry: replace(entry, serving=version("1")))
    return registry


def test_names_are_sorted_and_an_unknown_name_raises_the_list(registry: ModelRegistry) -> None:
    assert registry.names() == ["a", "b"]
    assert registry.get("a") is registry["a"]
    assert registry.get("c") is None
    with pytest.raises(EkibenError, match="no model 'c'; available: a, b") as caught:
        registry["c"]
    assert caught.value.slug == "unknown-model"


def test_ready_when_every_required_model_is_ready(registry: ModelRegistry) -> None:
    assert registry.not_ready_reason() == "b is LOADING"
    registry.update("b", lambda entry: replace(entry, serving=version("1")))
    assert registry.not_ready_reason() is None


def test_a_model_that_was_ready_is_required_when_it_fails(registry: ModelRegistry) -> None:
    registry.update("b", lambda entry: replace(entry, candidate=version("1")).promote_candidate())
    registry.update("b", lambda entry: replace(entry, serving=version("1", "FAILED")))
    assert registry.not_ready_reason() == "the health check failed"


def test_a_model_added_later_is_not_required(registry: ModelRegistry) -> None:
    registry.remove("b")
    registry.add("c", required=False)
    assert registry.not_ready_reason() is None


def test_unloaded_and_removed_models_are_not_required(registry: ModelRegistry) -> None:
    registry.update("b", lambda entry: replace(entry, desired=False))
    assert registry.not_ready_reason() is None
    registry.update("b", lambda entry: replace(entry, desired=True, removed=True))
    assert registry.not_ready_reason() is None


def test_not_ready_without_a_ready_model(registry: ModelRegistry) -> None:
    empty = ModelRegistry("the folder is empty")
    assert empty.not_ready_reason() == "the folder is empty"
    empty.folder_error = None
    assert empty.not_ready_reason() == "there is no model"
    registry.remove("b")
    registry.update("a", lambda entry: replace(entry.start_draining(), desired=False))
    registry.folder_error = None
    assert registry.not_ready_reason() is not None


def test_an_error_of_the_folder_does_not_affect_serving_models(registry: ModelRegistry) -> None:
    registry.remove("b")
    registry.folder_error = "cannot read the folder"
    assert registry.not_ready_reason() is None


def test_add_keeps_existing_models_and_restores_removed_ones(registry: ModelRegistry) -> None:
    model = registry["a"].model
    registry.add("a", required=False)
    assert registry["a"].model is model
    assert registry["a"].required
    registry.update("a", lambda entry: replace(entry.start_draining(), removed=True))
    registry.add("a", required=False)
    assert not registry["a"].removed
    assert [version.state for version in registry["a"].draining] == ["DRAINING"]


def test_a_change_of_a_removed_model_is_dropped(registry: ModelRegistry) -> None:
    registry.remove("a")
    assert registry.update("a", lambda entry: replace(entry, desired=False)) is None
    assert registry.names() == ["b"]


def policy_registry(ready_when: ReadyWhen) -> ModelRegistry:
    """One model is READY, one was there at the start and has failed."""
    registry = ModelRegistry("not scanned yet", ready_when)
    registry.folder_error = None
    for name in ("a", "b"):
        registry.add(name, required=True)
    registry.update("a", lambda entry: replace(entry, serving=version("1")))
    registry.update("b", lambda entry: replace(entry, candidate=version("1", "FAILED")))
    return registry


def test_any_ready_model_may_be_enough() -> None:
    registry = policy_registry(ReadyWhen())
    assert registry.not_ready_reason() is None
    registry.update("a", lambda entry: replace(entry, serving=None))
    assert registry.not_ready_reason() == "a is LOADING; the health check failed"


def test_named_models_are_required_and_no_others() -> None:
    assert policy_registry(ReadyWhen(names=frozenset("a"))).not_ready_reason() is None
    assert policy_registry(ReadyWhen(names=frozenset("ab"))).not_ready_reason() == "the health check failed"
    absent = "c: no such model folder, but EKIBEN_READY_WHEN names it"
    registry = policy_registry(ReadyWhen(names=frozenset("ac")))
    assert registry.not_ready_reason() == absent
    registry.add("c", required=False)
    assert registry.not_ready_reason() == "c is LOADING"
    registry.update("c", lambda entry: replace(entry, desired=False))
    assert registry.not_ready_reason() == "c was unloaded by request"
    registry.update("c", lambda entry: replace(entry, removed=True))
    assert registry.not_ready_reason() == absent
