"""Every method has a scope; what only some requests show is tested over the wire in test_server."""

import asyncio
from typing import Any

import pytest

from service.errors import EkibenError
from service.grpc.messages import CLASSES, MESSAGES, parse_message
from service.grpc.methods import METHODS, TYPES, is_ready
from tests.service.engine.fakes import manifest

OPEN = {"ServerLive", "ServerReady"}


class FakeRepository:
    """One READY model."""

    reason: str | None = None

    def get(self, name: str) -> Any:
        class Model:
            manifest = manifest("text-classifier")

        if name != "tiny-texts":
            raise EkibenError("unknown-model", f"no model {name!r}")
        if self.reason:
            raise EkibenError("not-ready", self.reason)
        return Model

    def not_ready_reason(self) -> str | None:
        return self.reason


class State:
    draining = False

    def __init__(self) -> None:
        self.repository = FakeRepository()


def call(method_name: str, state: Any = None, /, **fields: Any) -> Any:
    method = METHODS[method_name]
    content = asyncio.run(method.handle(state or State(), CLASSES[method.request](**fields), None))  # type: ignore[arg-type]
    return parse_message(f"{method_name}Response", content)


def test_scopes_and_work() -> None:
    assert {name for name, method in METHODS.items() if method.scope is None} == OPEN
    assert {name for name, method in METHODS.items() if method.is_work} == {
        "ModelInfer", "RepositoryModelLoad", "RepositoryModelUnload",
    }  # fmt: skip
    assert METHODS["ModelInfer"].scope == "infer"
    assert METHODS["RepositoryModelLoad"].scope == METHODS["RepositoryModelUnload"].scope == "admin"
    assert {method.request for method in METHODS.values()} <= set(MESSAGES)


def test_readiness_follows_repository_and_drain() -> None:
    state = State()
    assert call("ServerLive", state).live
    assert call("ServerReady", state).ready
    assert call("ModelReady", state, name="tiny-texts").ready
    state.draining = True
    assert not call("ServerReady", state).ready
    assert not call("ModelReady", state, name="tiny-texts").ready
    assert not is_ready(state)  # type: ignore[arg-type]
    state.draining, state.repository.reason = False, "failed"
    assert not call("ServerReady", state).ready
    assert not call("ModelReady", state, name="tiny-texts").ready
    with pytest.raises(EkibenError, match="no model 'x'"):
        call("ModelReady", state, name="x")


def test_metadata_and_configuration() -> None:
    metadata = call("ModelMetadata", name="tiny-texts", version="1")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("ids", "INT64", [-1, -1]), ("lengths", "INT64", [-1]),
    ]  # fmt: skip
    config = call("ModelConfig", name="tiny-texts").config
    assert [TYPES[tensor.data_type - 1] for tensor in config.input] == ["INT64", "INT64"]
    assert config.HasField("dynamic_batching")
    assert config.input[1].HasField("reshape")
    assert not config.input[0].HasField("reshape")


def test_there_is_one_repository() -> None:
    for name in ("RepositoryModelLoad", "RepositoryModelUnload", "RepositoryIndex"):
        with pytest.raises(EkibenError, match="because there is one repository, got 'other'"):
            call(name, repository_name="other")
