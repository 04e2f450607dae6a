"""One model of the catalog: who takes over from whom."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from service.engine.repository.entry import LAST_RETRY_S, Entry
from service.engine.repository.version import State, Version


class Stub(SimpleNamespace):
    """Anything, and it can be referred to weakly."""


def version(number: str, state: State = "READY") -> Version:
    model: Any = Stub(session=Stub(), manifest=Stub(version=number))
    ready = Version(name="m", version=number, state="WARMING").to("READY", model=model)
    match state:
        case "READY":
            return ready
        case "FAILED":
            return ready.to("FAILED", reason="the heartbeat found it wrong")
        case _:
            return Version(name="m", version=number, state=state)


def test_a_candidate_takes_over_in_one_step_and_the_old_one_drains() -> None:
    old, new = version("1"), version("2")
    entry = Entry(name="m", serving=old, candidate=new).swapped()
    assert (entry.serving, entry.candidate, entry.required) == (new, None, True)
    assert [(v.version, v.state) for v in entry.draining] == [("1", "DRAINING")]


def test_the_first_version_has_nobody_to_replace() -> None:
    entry = Entry(name="m", candidate=version("1")).swapped()
    assert entry.model is not None
    assert entry.draining == ()


def test_only_a_ready_candidate_takes_over() -> None:
    for candidate in (None, version("2", "WARMING")):
        with pytest.raises(AssertionError):
            Entry(name="m", candidate=candidate).swapped()


def test_what_was_found_wrong_is_not_served_and_drains_when_replaced() -> None:
    entry = Entry(name="m", serving=version("1", "FAILED"), candidate=version("2"))
    assert entry.model is None
    assert entry.shown.reason == "the heartbeat found it wrong"
    assert [v.state for v in entry.swapped().draining] == ["DRAINING"]


def test_versions_leave_when_nobody_holds_them() -> None:
    served = version("1")
    held = served.model
    entry = Entry(name="m", serving=served).retired()
    del served
    assert [v.version for v in entry.swept().draining] == ["1"]
    del held
    assert entry.swept().draining == ()


def test_the_version_that_stands_for_the_model() -> None:
    one, two = version("1"), version("2", "LOADING")
    assert Entry(name="m", serving=one, candidate=two).shown is one
    assert Entry(name="m", candidate=two).shown is two
    assert Entry(name="m", serving=one).retired().shown.state == "DRAINING"
    assert Entry(name="m").shown.state == "LOADING"
    assert Entry(name="m", wanted=False).shown.state == "UNLOADED"


def test_what_is_wrong_is_tried_again_later_each_time() -> None:
    assert Entry(name="m", serving=version("1")).later().retry_at is None
    entry = Entry(name="m", serving=version("1", "FAILED"))
    waits = []
    for _ in range(12):
        waits.append(entry.retry_s)
        entry = entry.later()
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == LAST_RETRY_S
    assert replace(entry, candidate=version("2")).swapped().retry_at is None
