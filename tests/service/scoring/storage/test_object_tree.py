"""What is special about object stores, HTTP servers and HDFS."""

from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from service.scoring.input.files import current_fingerprint, file_system, list_files
from service.scoring.job import ScoringError
from service.scoring.storage.location import parse_location
from service.scoring.storage.object_tree import HadoopTree, ObjectTree
from service.scoring.storage.pattern import Pattern
from tests.service.scoring.object_server import ObjectServer

OUT = Path("/nowhere")


def test_a_fingerprint_follows_the_bytes_of_an_object(store: ObjectServer) -> None:
    store.put("in/a.csv", b"1")
    [file] = list_files([store.uri("in")], output=OUT, input_format=None)
    assert current_fingerprint(file) == file.fingerprint
    store.put("in/a.csv", b"2")
    assert current_fingerprint(file) != file.fingerprint
    store.delete("in/a.csv")
    with pytest.raises(FileNotFoundError, match=rf"{store.scheme}://data/in/a\.csv is gone"):
        current_fingerprint(file)


def test_a_pattern_of_few_levels_does_not_list_what_lies_below(server: ObjectServer) -> None:
    for key in ("in/a.csv", "in/b/deep/c.csv"):
        server.put(key, b"x")
    tree = ObjectTree(parse_location(server.uri("in"), option="--input"))
    store, prefixes = tree._store, []

    class Store:
        def list_with_delimiter(self, prefix: str) -> Any:
            prefixes.append(prefix)
            return store.list_with_delimiter(prefix)

    tree._store = Store()
    assert [name for name, _ in tree.walk("in", Pattern("*.csv"), excluded=None)] == ["a.csv"]
    assert prefixes == ["in"]


def test_a_file_of_a_web_server_is_read(server: ObjectServer) -> None:
    """A client that asks for no list sees the S3 server as a web server."""
    server.put("in/a b.txt", b"hello\n", acl="public-read")
    [file] = list_files([f"{server.endpoint}/data/in/a%20b.txt"], output=OUT, input_format=None)
    assert (file.name, file.size) == ("a b.txt", 6)
    system, path = file_system(file.uri)
    with system.open_input_file(path) as opened:
        opened.seek(1)
        assert opened.read() == b"ello\n"
    server.put("in/a b.txt", b"other\n", acl="public-read")
    assert current_fingerprint(file) != file.fingerprint


@pytest.mark.parametrize("path", ["none.txt", "*.txt", ""])
def test_a_web_server_has_no_folders(path: str, server: ObjectServer) -> None:
    server.put("in/a.txt", b"hello\n")
    with pytest.raises(ScoringError, match="there is no such file, and HTTP has no folders"):
        list_files([f"{server.endpoint}/data/in/{path}"], output=OUT, input_format=None)


def test_hdfs_lists_like_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder stands for the cluster."""
    for name in ("in/a.csv", "in/_tmp/b.csv", "in/out/_ledger/job.json", "in/out/c.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    class Cluster:
        @staticmethod
        def from_uri(uri: str) -> tuple[pafs.FileSystem, str]:
            assert uri == "hdfs://host:8020/?user=me"
            return pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), ""

    monkeypatch.setattr(pafs, "FileSystem", Cluster)
    tree = HadoopTree(parse_location("hdfs://host:8020/in?user=me", option="--input"))
    assert [name for name, _ in tree.walk("in", Pattern(""), excluded=None)] == ["a.csv"]
    status = tree.status("in/a.csv")
    assert status is not None
    assert status.size == 8
    assert tree.status("in") is None
    assert tree.read_small("in/a.csv", 8) == b"in/a.csv"
    assert tree.read_small("in/a.csv", 7) is None


def test_hdfs_without_its_client_is_one_error() -> None:
    with pytest.raises(ScoringError, match="hdfs://host:8020/in: "):
        list_files(["hdfs://host:8020/in"], output=OUT, input_format=None)
