"""Every edge of the state machine, and that there is no other."""

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
def test_edges(before: State, after: State, model: Model) -> None:
    version = Version(name="m", version="1", state=before, model=model if before == "READY" else None)
    changes = {"model": model} if after == "READY" else {}
    if (before, after) in ALLOWED:
        moved = version.to(after, **changes)
        assert (moved.state, moved.name, moved.version) == (after, "m", "1")
        assert moved.since >= version.since
        assert version.state == before, "a moment of the past is not changed"
    else:
        with pytest.raises(AssertionError, match=f"{before} -> {after} is no edge"):
            version.to(after, **changes)


def test_only_a_ready_version_has_a_model(model: Model) -> None:
    ready = Version(name="m", state="WARMING").to("READY", model=model)
    assert ready.model is model
    assert ready.to("DRAINING").model is None
    assert ready.to("FAILED", reason="wrong").model is None


def test_a_version_is_in_use_while_somebody_holds_its_session() -> None:
    class Held:
        """Something that can be referred to weakly."""

    session = Held()
    version = Version(name="m", state="WARMING")
    assert not version.in_use
    model = Model(manifest=None, session=session, tokenizer=None)  # type: ignore[arg-type]
    leaving = version.to("READY", model=model).to("DRAINING")
    assert leaving.in_use
    copied = dataclasses.replace(model)
    del model, session
    assert leaving.in_use
    del copied
    assert not leaving.in_use
