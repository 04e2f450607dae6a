"""An S3 server in a process of its own: moto, one request at a time, so that conditional writes are atomic.

    python -m tests.service.scoring.object_server

Prints its port. POST /__faults?every=5&when=before makes every fifth request fail with 503, before it is carried out,
or after (when=after), as if the answer were lost. `conditions=ignored` drops If-Match and If-None-Match, like stores
that do not know them. `parts=refused` answers the second part of every upload with 403.
"""

import contextlib
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

ROOT = Path(__file__).parents[3]
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_DEFAULT_REGION": "us-east-1"}


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
                environ.pop("HTTP_IF_NONE_MATCH", None)
                environ.pop("HTTP_IF_MATCH", None)
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
    """A client of the server, with a bucket `data`."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        import boto3

        self.client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")

    def uri(self, path: str, *, bucket: str = "data") -> str:
        return f"s3://{bucket}/{path}?endpoint={self.endpoint}&region=us-east-1"

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
            with contextlib.suppress(self.client.exceptions.NoSuchKey):
                files[name] = self.read(f"{prefix}/{name}")
        files.pop("timing.json", None)
        return files

    def read(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket="data", Key=key)["Body"].read()
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


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Start a server; credentials are in the environment meanwhile."""
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    command = [sys.executable, "-m", "tests.service.scoring.object_server"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        server = ObjectServer(int(process.stdout.readline()))
        server.client.create_bucket(Bucket="data")
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


def main() -> None:
    from moto.server import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            """Requests are not logged."""

    app = Faults(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
