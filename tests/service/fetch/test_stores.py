"""Stores give the bytes of a file, or say in one line why not."""

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.fetch import stores
from service.fetch.source import DeniedError, FetchError
from service.fetch.stores import FolderStore, HttpStore, ObjectStore, open_store
from tests.service.scoring.object_server import ObjectServer


class Quiet(SimpleHTTPRequestHandler):
    """A server that may not be listed, below /denied, and asks for a signature, below /signed."""

    def do_GET(self) -> None:
        self.path = self.path.removeprefix("http://models.invalid")
        if self.path.startswith("/signed/") and not self.path.endswith("?sv=1&sig=a%2Fb"):
            return self.send_error(403)
        if self.path.startswith("/denied/") and not Path(self.translate_path(self.path)).exists():
            return self.send_error(403)
        return super().do_GET()

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


@contextlib.contextmanager
def file_server(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve a folder over HTTP, also as a proxy for any host; yield its URL."""
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_the_scheme_names_the_kind_of_store(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), FolderStore)
    assert isinstance(open_store(f"file://{tmp_path}"), FolderStore)
    assert isinstance(open_store("https://h/m"), HttpStore)
    assert isinstance(open_store("gs://bucket/m?anonymous=true"), ObjectStore)
    with pytest.raises(FetchError, match="unknown scheme 'ftp'"):
        open_store("ftp://h/m")
    with pytest.raises(FetchError, match="HDFS is not supported; copy the bundle to a folder first"):
        open_store("hdfs://h/m")


def test_a_folder_gives_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1" * (3 << 20))
    store = open_store(str(tmp_path))
    assert b"".join(store.read("x")) == b"1" * (3 << 20)
    with pytest.raises(FileNotFoundError):
        list(store.read("y"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FetchError, match="folder: Is a directory"):
        list(store.read("folder"))


def test_a_server_gives_files_and_its_status_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "folder").mkdir()
    with file_server(tmp_path) as url:
        store = open_store(url)
        assert b"".join(store.read("x")) == b"content"
        with pytest.raises(FileNotFoundError):
            list(store.read("y"))
    with pytest.raises(FetchError, match=rf"^{url}/x: .*refused"):
        list(store.read("x"))


def test_a_connection_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"content")
    delays: list[float] = []
    monkeypatch.setattr(stores, "time", SimpleNamespace(sleep=delays.append))
    with pytest.raises(FetchError, match="refused"):
        list(open_store("http://127.0.0.1:1/m").read("x"))
    assert delays == [0.0, 0.5, 1.0]
    with contextlib.ExitStack() as server, socket.create_server(("127.0.0.1", 0)) as reserved:
        address = reserved.getsockname()
        reserved.close()

        def start(_: float) -> None:
            server.enter_context(file_server(tmp_path, address[1]))

        monkeypatch.setattr(stores, "time", SimpleNamespace(sleep=start))
        assert b"".join(open_store(f"http://127.0.0.1:{address[1]}").read("x")) == b"content"


def test_the_proxy_of_the_environment_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x").write_bytes(b"content")
    with file_server(tmp_path) as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "other.invalid")
        assert b"".join(open_store("http://models.invalid/m").read("x")) == b"content"


def test_a_query_belongs_to_every_file(tmp_path: Path) -> None:
    (tmp_path / "signed").mkdir()
    (tmp_path / "signed" / "x").write_bytes(b"content")
    with file_server(tmp_path) as url:
        assert b"".join(open_store(f"{url}/signed/?sv=1&sig=a%2Fb").read("x")) == b"content"
        with pytest.raises(DeniedError, match=f"^{url}/signed/x: the server answers 403$"):
            list(open_store(f"{url}/signed?sig=secret").read("x"))


def test_object_storage_without_the_right_to_list_refuses_what_is_not_there(tmp_path: Path) -> None:
    with file_server(tmp_path) as url, pytest.raises(DeniedError, match=r"^s3://denied/m/x: .*403"):
        list(open_store(f"s3://denied/m?endpoint={url}&anonymous=true").read("x"))


def test_object_storage_gives_files(server: ObjectServer) -> None:
    server.put("models/x", b"content")
    store = open_store(server.uri("models"))
    assert b"".join(store.read("x")) == b"content"
    with pytest.raises(FileNotFoundError):
        list(store.read("y"))
    with pytest.raises(FileNotFoundError):
        list(open_store(server.uri("models", bucket="absent")).read("x"))
