"""Manifests and blobs of a registry, with and without a token."""

import base64
import json
from pathlib import Path

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


@pytest.mark.parametrize("fields", [{"auth": CREDENTIALS}, {"username": "user", "password": "secret"}])
def test_a_token_is_asked_for_with_the_credentials_of_the_engine(
    fields: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with registry_server(CREDENTIALS) as server:
        digest = server.push([("x", b"content")])
        registry = client_of(server.place(digest))
        with pytest.raises(FetchError, match="gives no token, but 401: check DOCKER_CONFIG"):
            registry.manifest(digest)
        (tmp_path / "config.json").write_text(json.dumps({"auths": {f"127.0.0.1:{server.port}": fields}}))
        assert registry.manifest(digest) == server.manifests[digest]


def test_a_place_names_a_host_and_a_repository() -> None:
    with pytest.raises(FetchError, match="expected oci://HOST/REPOSITORY"):
        Registry("oci://host")
