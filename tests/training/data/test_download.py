import hashlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training.data.download import fetch

CONTENT = b"data" * 1_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class RecordingHandler(SimpleHTTPRequestHandler):
    requested_paths: list[str] = []  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        self.requested_paths.append(self.path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "set.tar.gz").write_bytes(CONTENT)
    RecordingHandler.requested_paths.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(RecordingHandler, directory=str(folder))) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/set.tar.gz"
        httpd.shutdown()


def test_url_is_downloaded_once(server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = fetch(f"{server}#sha256={SHA256}", tmp_path / "cache")
    assert path.name == "set.tar.gz"
    assert path.read_bytes() == CONTENT
    assert "100%" in capfd.readouterr().err
    assert fetch(f"{server}#sha256={SHA256}", tmp_path / "cache") == path
    assert len(RecordingHandler.requested_paths) == 1


def test_content_with_another_hash_is_refused_and_deleted(server: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(SHA256)):
        fetch(f"{server}#sha256={'0' * 64}", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_failed_fetch_names_the_reason(server: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end with #sha256=<64 hex digits>"):
        fetch(server, tmp_path)
    with pytest.raises(ValueError, match="must end with #sha256"):
        fetch(f"{server}#sha256=12ab", tmp_path)
    with pytest.raises(ValueError, match=r"expected a path or an http\(s\) URL"):
        fetch(f"ftp://127.0.0.1/x#sha256={SHA256}", tmp_path)
    with pytest.raises(ValueError, match=r"the download failed: .*404"):
        fetch(f"{server}.bz2#sha256={SHA256}", tmp_path)


def test_path_is_used_unchanged(tmp_path: Path) -> None:
    assert fetch(str(tmp_path / "data")) == tmp_path / "data"
    assert fetch("~/data") == Path.home() / "data"
