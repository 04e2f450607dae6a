"""Manifests and blobs of a registry, with and without a token."""

import base64
import json
from pathlib import Path

import httpx
import pytest

from service.fetch.registry import Registry
from service.fetch.source import FetchError
from tests.service.fetch.registry_server import registry_server

CREDENTIALS = base64.b64encode(b"user:secret").decode()


def client_of(place: str) -> Registry:
    return Registry(place.rpartition("@")[0])


def test_manifests_and_blobs_are_read() -> None:
    with registry_server() as server:
        digest = server.push([("x", b"content")])
        registry = client_of(server.place(digest))
        assert registry.manifest(digest) == server.manifests[digest]
        assert b"".join(registry.blob(next(iter(server.blobs)))) == b"content"
        with pytest.raises(FetchError, match=r"^oci://127.0.0.1:\d+/team/bundles@sha256:0: the registry answers 404"):
            registry.manifest("sha256:0")
    with pytest.raises(FetchError, match=r"oci://.*: .*refused"):
        registry.manifest(digest)


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("{}", {"auth": CREDENTIALS}),
        ("{}", {"username": "user", "password": "secret"}),
        ("https://{}", {"auth": CREDENTIALS}),
        ("https://{}/v1/", {"auth": CREDENTIALS}),
    ],
)
def test_a_token_is_asked_for_with_the_credentials_of_the_engine(
    key: str, fields: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with registry_server(CREDENTIALS) as server:
        digest = server.push([("x", b"content")])
        registry = client_of(server.place(digest))
        with pytest.raises(FetchError, match="gives no token, but 401: check DOCKER_CONFIG"):
            registry.manifest(digest)
        write_config(tmp_path, {"localhost": {}, key.format(f"127.0.0.1:{server.port}"): fields})
        assert registry.manifest(digest) == server.manifests[digest]


def write_config(folder: Path, auths: dict[str, dict[str, str]]) -> None:
    (folder / "config.json").write_text(json.dumps({"auths": auths}))


def test_docker_hub_has_a_registry_and_credentials_of_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "https://registry-1.docker.io/v2/team/bundles/manifests/sha256:0"
        if request.headers.get("authorization") != f"Basic {CREDENTIALS}":
            return httpx.Response(401, headers={"www-authenticate": 'Basic realm="hub"'})
        return httpx.Response(200, content=b"{}")

    client = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr("service.fetch.registry.new_client", lambda: client)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    write_config(tmp_path, {"https://index.docker.io/v1/": {"auth": CREDENTIALS}})
    assert Registry("oci://docker.io/team/bundles").manifest("sha256:0") == b"{}"


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b'{"token": 1}', b"{}"])
def test_a_server_of_tokens_that_gives_none_is_named(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        challenge = {"www-authenticate": 'Bearer realm="https://host/token"'}
        return (
            httpx.Response(200, content=content)
            if request.url.path == "/token"
            else httpx.Response(401, headers=challenge)
        )

    client = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr("service.fetch.registry.new_client", lambda: client)
    with pytest.raises(FetchError, match="@sha256:0: the registry gives no token, but 200: check DOCKER_CONFIG"):
        Registry("oci://host/team/bundles").manifest("sha256:0")


def test_a_place_names_a_host_and_a_repository() -> None:
    with pytest.raises(FetchError, match="expected oci://HOST/REPOSITORY"):
        Registry("oci://host")
    with pytest.raises(FetchError, match="Invalid port: 'port'"):
        Registry("oci://host:port/repository").manifest("sha256:0")
