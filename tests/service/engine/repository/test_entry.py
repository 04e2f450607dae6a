"""Tests of how the versions of a model replace each other."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from service.engine.repository.entry import MAX_RETRY_S, ModelEntry
from service.engine.repository.version import State, Version


class Stub(SimpleNamespace):
    """An object with any attributes that can be referenced weakly."""


def version(number: str, state: State = "READY") -> Version:
    model: Any = Stub(session=Stub(), manifest=Stub(version=number))
    ready = Version(name="m", version=number, state="WARMING").to("READY", model=model)
    match state:
        case "READY":
            return ready
        case "FAILED":
            return ready.to("FAILED", reason="the health check failed")
        case _:
            return Version(name="m", version=number, state=state)


def test_a_promoted_candidate_serves_and_the_old_version_drains() -> None:
    old, new = version("1"), version("2")
    entry = ModelEntry(name="m", serving=old, candidate=new).promote_candidate()
    assert (entry.serving, entry.candidate, entry.required) == (new, None, True)
    assert [(v.version, v.state) for v in entry.draining] == [("1", "DRAINING")]


def test_the_first_version_replaces_none() -> None:
    entry = ModelEntry(name="m", candidate=version("1")).promote_candidate()
    assert entry.model is not None
    assert entry.draining == ()


def test_only_a_ready_candidate_can_be_promoted() -> None:
    for candidate in (None, version("2", "WARMING")):
        with pytest.raises(AssertionError):
            ModelEntry(name="m", candidate=candidate).promote_candidate()


def test_a_failed_version_does_not_serve_and_drains_when_replaced() -> None:
    entry = ModelEntry(name="m", serving=version("1", "FAILED"), candidate=version("2"))
    assert entry.model is None
    assert entry.display_version.reason == "the health check failed"
    assert [v.state for v in entry.promote_candidate().draining] == ["DRAINING"]


def test_a_version_is_unloaded_when_no_request_holds_it() -> None:
    serving = version("1")
    held = serving.model
    entry = ModelEntry(name="m", serving=serving).start_draining()
    del serving
    assert [v.version for v in entry.drop_unloaded().draining] == ["1"]
    del held
    assert entry.drop_unloaded().draining == ()


def test_display_version_prefers_serving_over_candidate_over_draining() -> None:
    one, two = version("1"), version("2", "LOADING")
    assert ModelEntry(name="m", serving=one, candidate=two).display_version is one
    assert ModelEntry(name="m", candidate=two).display_version is two
    assert ModelEntry(name="m", serving=one).start_draining().display_version.state == "DRAINING"
    assert ModelEntry(name="m").display_version.state == "LOADING"
    assert ModelEntry(name="m", desired=False).display_version.state == "UNLOADED"
    assert ModelEntry(name="m", desired=False).display_version.reason == "m was unloaded by request"
    assert ModelEntry(name="m", removed=True).display_version.reason == "m: its folder was removed"


def test_each_retry_of_a_failed_version_is_later() -> None:
    assert ModelEntry(name="m", serving=version("1")).with_retry().retry_at is None
    entry = ModelEntry(name="m", serving=version("1", "FAILED"))
    waits = []
    for _ in range(12):
        waits.append(entry.retry_s)
        entry = entry.with_retry()
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == MAX_RETRY_S
    assert replace(entry, candidate=version("2")).promote_candidate().retry_at is None


def test_a_shortage_is_retried_whatever_serves_and_a_fault_ends_the_retries() -> None:
    entry = ModelEntry(name="m", serving=version("1")).with_retry(is_shortage=True)
    assert entry.retry_at is not None
    assert entry.retry_s == 10.0
    assert (entry.with_retry().retry_at, entry.with_retry().retry_s) == (None, 5.0)


def test_a_new_model_has_no_version() -> None:
    entry = ModelEntry(name="m")
    assert (entry.model, entry.serving, entry.candidate, entry.draining) == (None, None, None, ())
    assert entry.with_retry().retry_at is None


def test_the_longest_wait_for_a_retry_is_five_minutes() -> None:
    entry = ModelEntry(name="m", retry_s=200.0).with_retry(is_shortage=True)
    assert entry.retry_s == 300.0
