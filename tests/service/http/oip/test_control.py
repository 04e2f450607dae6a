"""Index, load and unload, in the format of Triton."""

import asyncio
import threading
import time
from typing import Any

import pytest

from service.engine.context import RequestContext
from service.errors import EkibenError
from service.http.oip.control import list_index, load_model, unload_model


class FakeRepository:
    """Lists the given rows, and notes what it is asked to do."""

    def __init__(self, rows: list[dict[str, Any]] | None = None, *, blocker: threading.Event | None = None) -> None:
        self.rows = rows or []
        self.blocker = blocker
        self.asked: list[tuple[str, str]] = []

    def list_models(self) -> list[dict[str, Any]]:
        return self.rows

    def load(self, name: str, *, timeout_s: float) -> None:
        assert 0 < timeout_s <= 5
        if self.blocker is not None:
            assert self.blocker.wait(30)
        if name == "broken":
            raise EkibenError("not-ready", "broken: no goldens")
        self.asked.append(("load", name))

    def unload(self, name: str, *, timeout_s: float) -> None:
        self.asked.append(("unload", name))


class State:
    def __init__(self, repository: FakeRepository) -> None:
        self.repository = repository


def row(name: str, state: str, version: str | None = "a" * 12, **fields: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "version": version, "reason": None, "next": None, "draining": [], **fields}


def context(timeout_s: float = 5.0) -> RequestContext:
    return RequestContext(time.monotonic(), timeout_s, 5.0, "", "")


ROWS = [
    row("ready", "READY", draining=["b" * 12]),
    row("failed", "FAILED", None, reason="no goldens"),
    row("warming", "WARMING"),
    row("renewed", "READY", next={"version": "c" * 12, "state": "FAILED", "reason": "worse"}),
    row("unloading", "DRAINING", draining=["a" * 12]),
]


def test_the_index_has_every_version_with_its_state() -> None:
    entries = list_index(State(FakeRepository(ROWS)), {})  # type: ignore[arg-type]
    assert [(entry["name"], entry["version"][:1], entry["state"], entry["reason"]) for entry in entries] == [
        ("ready", "a", "READY", ""),
        ("ready", "b", "UNLOADING", ""),
        ("failed", "", "UNAVAILABLE", "no goldens"),
        ("warming", "a", "LOADING", ""),
        ("renewed", "a", "READY", ""),
        ("renewed", "c", "UNAVAILABLE", "worse"),
        ("unloading", "a", "UNLOADING", ""),
    ]


def test_the_index_may_be_of_ready_models_alone() -> None:
    state: Any = State(FakeRepository(ROWS))
    assert [entry["name"] for entry in list_index(state, {"ready": True})] == ["ready", "renewed"]
    assert list_index(state, {"ready": None, "repository_name": ""}) == list_index(state, {"ready": False})


@pytest.mark.parametrize(
    ("content", "pointer"),
    [({"ready": 1}, "/ready"), ({"repository_name": "x"}, "/repository_name"), ({"x": 1}, "/x"), ([], "")],
)
def test_the_request_of_an_index_is_checked(content: Any, pointer: str) -> None:
    with pytest.raises(EkibenError) as caught:
        list_index(State(FakeRepository()), content)  # type: ignore[arg-type]
    assert caught.value.faults[0].pointer == pointer


def test_models_are_loaded_and_unloaded() -> None:
    state: Any = State(FakeRepository())
    asyncio.run(load_model(state, "a", {}, context()))
    asyncio.run(load_model(state, "b", {"parameters": {}}, context()))
    asyncio.run(unload_model(state, "a", {"parameters": {"unload_dependents": True}}, context()))
    assert state.repository.asked == [("load", "a"), ("load", "b"), ("unload", "a")]
    with pytest.raises(EkibenError, match="broken: no goldens"):
        asyncio.run(load_model(state, "broken", {}, context()))


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
def test_other_files_than_those_of_the_bundle_are_refused(name: str) -> None:
    state: Any = State(FakeRepository())
    with pytest.raises(EkibenError, match="a bundle has its own files and configuration") as caught:
        asyncio.run(load_model(state, "a", {"parameters": {name: "x"}}, context()))
    assert caught.value.faults[0].pointer == "/parameters/" + name.replace("/", "~1")
    with pytest.raises(EkibenError, match="/parameters/unload_dependents: expected true or false"):
        asyncio.run(unload_model(state, "a", {"parameters": {"unload_dependents": 1}}, context()))
    with pytest.raises(EkibenError, match="/parameters: expected an object"):
        asyncio.run(load_model(state, "a", {"parameters": 3}, context()))
    assert state.repository.asked == []


def test_a_load_goes_on_beyond_the_deadline_of_its_request() -> None:
    blocker = threading.Event()
    state: Any = State(FakeRepository(blocker=blocker))

    async def load() -> None:
        with pytest.raises(EkibenError, match="a: it goes on beyond the deadline") as caught:
            await load_model(state, "a", {}, context(0.05))
        assert caught.value.slug == "timeout"
        assert state.repository.asked == []
        blocker.set()

    asyncio.run(load())
    assert state.repository.asked == [("load", "a")]
