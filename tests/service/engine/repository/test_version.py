"""Every transition of the state machine, and no other."""

import dataclasses
import itertools
from typing import get_args

import pytest

from service.engine.repository.version import State, Version
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session

ALLOWED = {
    ("LOADING", "VERIFYING"),
    ("VERIFYING", "WARMING"),
    ("WARMING", "READY"),
    ("READY", "DRAINING"),
    ("DRAINING", "UNLOADED"),
    ("LOADING", "FAILED"),
    ("VERIFYING", "FAILED"),
    ("WARMING", "FAILED"),
    ("READY", "FAILED"),
    ("FAILED", "DRAINING"),
}


@pytest.fixture
def model(sessions: dict[str, Session]) -> Model:
    session = sessions["image-classifier"]
    return Model(manifest=session.manifest, session=session, tokenizer=None)


@pytest.mark.parametrize(("before", "after"), [*itertools.product(get_args(State), repeat=2)])
def test_transitions(before: State, after: State, model: Model) -> None:
    version = Version(name="m", version="1", state=before, model=model if before == "READY" else None)
    changes = {"model": model} if after == "READY" else {}
    if (before, after) in ALLOWED:
        next_version = version.to(after, **changes)
        assert (next_version.state, next_version.name, next_version.version) == (after, "m", "1")
        assert next_version.state_since >= version.state_since
        assert version.state == before, "a transition does not modify the snapshot"
    else:
        with pytest.raises(AssertionError, match=f"{before} -> {after} is not a transition"):
            version.to(after, **changes)


def test_only_a_ready_version_has_a_model(model: Model) -> None:
    ready = Version(name="m", state="WARMING").to("READY", model=model)
    assert ready.model is model
    assert ready.to("DRAINING").model is None
    assert ready.to("FAILED", reason="wrong").model is None


def test_a_version_is_in_use_while_its_session_is_referenced() -> None:
    class FakeSession:
        """An object that can be referenced weakly."""

    session = FakeSession()
    version = Version(name="m", state="WARMING")
    assert not version.in_use
    model = Model(manifest=None, session=session, tokenizer=None)  # type: ignore[arg-type]
    draining = version.to("READY", model=model).to("DRAINING")
    assert draining.in_use
    copied = dataclasses.replace(model)
    del model, session
    assert draining.in_use
    del copied
    assert not draining.in_use


def test_the_states_are_those_of_the_transitions() -> None:
    assert set(get_args(State)) == {state for transition in ALLOWED for state in transition}


def test_a_new_version_is_loading_and_says_so() -> None:
    version = Version(name="m", version="1")
    assert (version.state, version.reason, version.not_ready_reason) == ("LOADING", None, "m is LOADING")
    assert version.to("FAILED", reason="m/1: no").not_ready_reason == "m/1: no"


def test_a_version_that_left_ready_holds_no_golden_cases(model: Model) -> None:
    ready = Version(name="m", state="WARMING").to("READY", model=model, golden=({},))
    assert ready.golden
    assert ready.to("DRAINING").golden == ()
