"""Object stores in processes of their own, one request at a time, so that conditional writes are atomic.

    python -m tests.service.scoring.object_server s3|gs|az

s3 is moto, gs `google_server`, and az Azurite, which `make prove-object-stores` installs. Prints its port.

POST /__faults?every=5&when=before makes every fifth request fail with 503, before it is carried out, or after
(when=after), as if the answer were lost. `conditions=ignored` drops the conditions of requests, like stores that do not
know them. `parts=refused` answers the second part of every upload with 403.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

from service.engine.process.parent_death import signal_on_parent_death

Kind = Literal["s3", "gs", "az"]
ROOT = Path(__file__).parents[3]
AZURITE = ROOT / "build" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_DEFAULT_REGION": "us-east-1"}
# A service account that asks no server for its token.
GOOGLE_ACCOUNT = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
GOOGLE_ACCOUNT["gcs_base_url"] = "https://storage.googleapis.com"
# The account of Azurite, and its key, which is published.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
# What a server has removed from a request that is to be carried out without its conditions.
CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH", "HTTP_X_GOOG_IF_GENERATION_MATCH")


class Faults:
    """Wraps a WSGI application."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app, self._lock = app, threading.Lock()
        self._every, self._when, self._count = 0, "before", 0
        self._conditions, self._parts = "honoured", "taken"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            if environ["PATH_INFO"] == "/__faults":
                options = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
                self._every, self._count = int(options.get("every", 0)), 0
                self._when = options.get("when", "before")
                self._conditions = options.get("conditions", "honoured")
                self._parts = options.get("parts", "taken")
                start_response("200 OK", [("Content-Length", "0")])
                return [b""]
            if self._parts == "refused" and "partNumber=2" in environ["QUERY_STRING"]:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response("403 Forbidden", [("Content-Length", "2")])
                return [b"no"]
            if self._conditions == "ignored":
                for name in CONDITIONS:
                    environ.pop(name, None)
            self._count += 1
            fails = bool(self._every) and self._count % self._every == 0
            if fails and self._when == "before":
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            else:
                content = list(self._app(environ, (lambda *_: None) if fails else start_response))
                if not fails:
                    return content
            start_response("503 Service Unavailable", [("Content-Length", "4")])
            return [b"busy"]


class ObjectServer:
    """A client of an S3 server, with a bucket `data`."""

    scheme = "s3"
    credentials: Mapping[str, str] = CREDENTIALS

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        import boto3

        self.client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")

    def create_bucket(self) -> None:
        self.client.create_bucket(Bucket="data")

    def uri(self, path: str, *, bucket: str = "data") -> str:
        return f"s3://{bucket}/{path}?endpoint={self.endpoint}&region=us-east-1"

    def place(self, path: str, *, bucket: str = "data") -> str:
        """The name of a place in messages."""
        return f"{self.scheme}://{bucket}/{path}"

    def put(self, key: str, content: bytes, *, acl: str = "private") -> None:
        self.client.put_object(Bucket="data", Key=key, Body=content, ACL=acl)

    def upload(self, folder: Path, prefix: str) -> None:
        """Put every file below a folder under the prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def tree(self, prefix: str) -> dict[str, bytes]:
        """The content of every object below a prefix but timing.json."""
        files = {}
        for name in [key.removeprefix(f"{prefix}/") for key in self.list_keys() if key.startswith(f"{prefix}/")]:
            # A process may delete its claim meanwhile.
            with contextlib.suppress(FileNotFoundError):
                files[name] = self.read(f"{prefix}/{name}")
        files.pop("timing.json", None)
        return files

    def read(self, key: str) -> bytes:
        try:
            content: bytes = self.client.get_object(Bucket="data", Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(key) from error
        return content

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.client.delete_object(Bucket="data", Key=key)

    def list_keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="data")
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def empty(self) -> None:
        self.delete(*self.list_keys())

    def faults(self, query: str = "") -> None:
        request = urllib.request.Request(f"{self.endpoint}/__faults?{query}", method="POST", data=b"")
        urllib.request.urlopen(request).close()


class GoogleServer(ObjectServer):
    """A client of a server of Google Cloud Storage, which has the bucket `data` from its start."""

    scheme = "gs"
    credentials: Mapping[str, str] = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(GOOGLE_ACCOUNT)}

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"

    def create_bucket(self) -> None:
        """The application has it."""

    def uri(self, path: str, *, bucket: str = "data") -> str:
        return f"gs://{bucket}/{path}?endpoint={self.endpoint}"

    def put(self, key: str, content: bytes, *, acl: str = "private") -> None:
        assert acl == "private"
        self._store.put(key, content, use_multipart=False)

    def read(self, key: str) -> bytes:
        return bytes(self._store.get(key).bytes())

    def delete(self, *keys: str) -> None:
        for key in keys:
            self._store.delete(key)

    def list_keys(self) -> list[str]:
        return sorted(item["path"] for page in self._store.list() for item in page)

    @property
    def _store(self) -> Any:
        from service.scoring.storage.location import parse_location
        from service.scoring.storage.object_store import open_store

        return open_store(parse_location(self.uri(""), option="--input"))


class AzureServer(GoogleServer):
    """A client of Azurite, with a container `data`."""

    scheme = "az"
    credentials: Mapping[str, str] = {"AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}

    def create_bucket(self) -> None:
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        signed = "".join(f"{name}:{value}\n" for name, value in headers.items())
        signed = f"PUT{12 * chr(10)}{signed}/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/data\nrestype:container"
        digest = hmac.digest(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256)
        headers["authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
        url = f"{self.endpoint}/{AZURE_ACCOUNT}/data?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()

    def uri(self, path: str, *, bucket: str = "data") -> str:
        return f"az://{bucket}/{path}?endpoint={self.endpoint}/{AZURE_ACCOUNT}&account={AZURE_ACCOUNT}"


SERVERS: dict[Kind, type[ObjectServer]] = {"s3": ObjectServer, "gs": GoogleServer, "az": AzureServer}


@contextlib.contextmanager
def object_server(kind: Kind = "s3") -> Iterator[ObjectServer]:
    """Start a server; credentials are in the environment meanwhile."""
    credentials = SERVERS[kind].credentials
    before = {name: os.environ.get(name) for name in credentials}
    os.environ.update(credentials)
    command = [sys.executable, "-m", "tests.service.scoring.object_server", kind]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        server = SERVERS[kind](int(process.stdout.readline()))
        server.create_bucket()
        yield server
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Forward:
    """A WSGI application that has another server on this machine answer."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if environ.get(name):
                headers[name.replace("_", "-")] = environ[name]
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(connection):
            connection.request(environ["REQUEST_METHOD"], environ["RAW_URI"], body, headers)
            response = connection.getresponse()
            content = response.read()
            forwarded = [
                pair for pair in response.getheaders() if pair[0].lower() not in {"transfer-encoding", "connection"}
            ]
            start_response(f"{response.status} {response.reason}", forwarded)
        return [content]


def start_azurite() -> int:
    """Start Azurite, which ends with this process; return its port."""
    process = subprocess.Popen(
        [AZURITE, "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal_on_parent_death, signal.SIGKILL),  # noqa: PLW1509 - one thread so far
    )
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return int(found[1])
    raise RuntimeError("Azurite does not listen")


def application(kind: str) -> Callable[..., Iterable[bytes]]:
    if kind == "az":
        return Forward(start_azurite())
    if kind == "gs":
        from tests.service.scoring.google_server import GoogleApp

        return GoogleApp(["data"])
    from moto.server import create_backend_app

    app: Callable[..., Iterable[bytes]] = create_backend_app("s3")
    return app


def main() -> None:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            """Requests are not logged."""

    app = Faults(application(sys.argv[1]))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
