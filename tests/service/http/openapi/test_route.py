"""The document is served on both of its paths, made once for a set of models, and changes with it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.errors import EkibenError
from service.http.openapi import route as module
from service.http.openapi.route import document_routes
from service.http.router import served_routes


def test_both_paths_have_the_same_document(client: TestClient) -> None:
    first, second = client.get("/openapi.json"), client.get("/docs.json")
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]
    head = client.head("/openapi.json", headers={"accept-encoding": "identity"})
    assert head.headers["content-length"] == str(len(first.content))


def test_a_client_that_has_the_document_gets_none(client: TestClient) -> None:
    tag = client.get("/openapi.json").headers["etag"]
    again = client.get("/openapi.json", headers={"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


class FakeRepository:
    """Models by name with their versions; `get` refuses the one that was unloaded after it was listed."""

    def __init__(self, manifest: Any) -> None:
        self.versions = {"a": "1"}
        self.unloaded = ""
        self._manifest = manifest

    def list_models(self) -> list[dict[str, Any]]:
        return [{"name": name, "state": "READY"} for name in self.versions] + [{"name": "z", "state": "FAILED"}]

    def get(self, name: str) -> Any:
        if name == self.unloaded:
            raise EkibenError("not-ready", "unloaded")
        changes = {"name": name, "version": self.versions[name]}
        return SimpleNamespace(manifest=self._manifest.model_copy(update=changes))


def test_the_document_is_made_again_only_when_a_model_changes(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bentoml

    manifest = bentoml.get_current_service().repository.get("tiny-images").manifest
    repository, made = FakeRepository(manifest), []
    build = module.build_document

    def counted(*args: Any) -> Any:
        made.append([each.name for each in args[1]])
        return build(*args)

    monkeypatch.setattr(module, "build_document", counted)
    [first, *_] = document_routes(served_routes)
    state: Any = SimpleNamespace(repository=repository)
    request: Any = SimpleNamespace(header=lambda _: "")

    def ask() -> str:
        response = asyncio.run(first.handle(state, request))
        return dict(response.headers)["etag"]

    tags = [ask(), ask()]
    assert (made, tags[0]) == ([["a"]], tags[1])
    repository.versions["b"] = "1"
    tags.append(ask())
    repository.versions["b"] = "2"
    tags.append(ask())
    repository.unloaded = "b"
    tags.append(ask())
    assert made == [["a"], ["a", "b"], ["a", "b"], ["a"]]
    assert len(set(tags)) == 3
    assert tags[0] == tags[-1]
