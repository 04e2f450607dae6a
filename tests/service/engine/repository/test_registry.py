"""Which models there are, and when a service that has them may call itself ready."""

from dataclasses import replace

import pytest

from service.engine.repository.registry import Catalog
from service.errors import EkibenError
from tests.service.engine.repository.test_entry import version


@pytest.fixture
def catalog() -> Catalog:
    """One model READY, one still LOADING; both were there at the start."""
    catalog = Catalog("not looked at yet")
    for name in ("b", "a"):
        catalog.add(name, required=True)
    catalog.update("a", lambda entry: replace(entry, serving=version("1")))
    return catalog


def test_names_are_sorted_and_unknown_ones_are_told_what_there_is(catalog: Catalog) -> None:
    assert catalog.names() == ["a", "b"]
    assert "a" in catalog
    assert "c" not in catalog
    with pytest.raises(EkibenError, match="no model 'c'; there are: a, b") as caught:
        catalog["c"]
    assert caught.value.slug == "unknown-model"


def test_ready_when_every_needed_model_is(catalog: Catalog) -> None:
    assert catalog.not_ready_because() == "b is LOADING"
    catalog.update("b", lambda entry: replace(entry, serving=version("1")))
    assert catalog.not_ready_because() is None


def test_a_model_that_was_ready_is_missed_when_it_fails(catalog: Catalog) -> None:
    catalog.update("b", lambda entry: replace(entry, candidate=version("1")).swapped())
    catalog.update("b", lambda entry: replace(entry, serving=version("1", "FAILED")))
    assert catalog.not_ready_because() == "the heartbeat found it wrong"


def test_a_newcomer_is_not_needed(catalog: Catalog) -> None:
    catalog.remove("b")
    catalog.add("c", required=False)
    assert catalog.not_ready_because() is None


def test_what_was_unloaded_or_removed_is_not_missed(catalog: Catalog) -> None:
    catalog.update("b", lambda entry: replace(entry, wanted=False))
    assert catalog.not_ready_because() is None
    catalog.update("b", lambda entry: replace(entry, wanted=True, gone=True))
    assert catalog.not_ready_because() is None


def test_nothing_ready_is_not_ready(catalog: Catalog) -> None:
    empty = Catalog("the folder is empty")
    assert empty.not_ready_because() == "the folder is empty"
    empty.trouble = None
    assert empty.not_ready_because() == "no model is there"
    catalog.remove("b")
    catalog.update("a", lambda entry: replace(entry.retired(), wanted=False))
    catalog.trouble = None
    assert catalog.not_ready_because() is not None


def test_trouble_with_the_folder_does_not_end_what_serves(catalog: Catalog) -> None:
    catalog.remove("b")
    catalog.trouble = "cannot read the folder"
    assert catalog.not_ready_because() is None


def test_what_is_known_stays_as_it_is_and_what_was_gone_comes_back(catalog: Catalog) -> None:
    served = catalog["a"].model
    catalog.add("a", required=False)
    assert catalog["a"].model is served
    assert catalog["a"].required
    catalog.update("a", lambda entry: replace(entry.retired(), gone=True))
    catalog.add("a", required=False)
    assert not catalog["a"].gone
    assert [version.state for version in catalog["a"].draining] == ["DRAINING"]
