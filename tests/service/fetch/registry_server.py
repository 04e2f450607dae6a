"""A registry of OCI artifacts: the three GETs of the specification, with a token if it asks for one."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ARTIFACT = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"


class Registry:
    """`blobs` and `manifests` by digest; with `credentials`, a token is given to those who send them."""

    def __init__(self, credentials: str | None) -> None:
        self.credentials = credentials
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.port = 0

    def push(self, contents: list[tuple[str | None, bytes]], **fields: Any) -> str:
        """Store an artifact of these layers, a file name each or None; return the digest of its manifest."""
        entries = []
        for title, content in contents:
            digest = digest_of(content)
            self.blobs[digest] = content
            annotations = {} if title is None else {"annotations": {TITLE: title}}
            entries.append(
                {"mediaType": "application/octet-stream", "digest": digest, "size": len(content), **annotations}
            )
        manifest = json.dumps({"schemaVersion": 2, "mediaType": ARTIFACT, "layers": entries, **fields}).encode()
        self.manifests[digest_of(manifest)] = manifest
        return digest_of(manifest)

    def push_folder(self, folder: Path) -> str:
        """Store the files of a bundle as `oras push` does."""
        return self.push([(path.name, path.read_bytes()) for path in sorted(folder.iterdir())])

    def place(self, digest: str) -> str:
        return f"oci://127.0.0.1:{self.port}/team/bundles@{digest}"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextlib.contextmanager
def registry_server(credentials: str | None = None) -> Iterator[Registry]:
    registry = Registry(credentials)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/token":
                granted = self.headers.get("authorization") == f"Basic {registry.credentials}"
                return self._answer(200 if granted else 401, b'{"token": "t0ken"}' if granted else b"")
            if registry.credentials and self.headers.get("authorization") != "Bearer t0ken":
                realm = f'Bearer realm="http://127.0.0.1:{registry.port}/token",service="registry",scope="pull"'
                return self._answer(401, b"", {"www-authenticate": realm})
            kind, _, digest = path.removeprefix("/v2/team/bundles/").partition("/")
            content = {"manifests": registry.manifests, "blobs": registry.blobs}[kind].get(digest)
            return self._answer(404 if content is None else 200, content or b"")

        def _answer(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Requests are not logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield registry
        finally:
            server.shutdown()
