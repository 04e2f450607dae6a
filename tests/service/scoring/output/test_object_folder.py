"""What is special about an output folder in an object store."""

import os
import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from service.scoring.job import ScoringError
from service.scoring.output import object_folder
from service.scoring.output.object_folder import ObjectFolder
from service.scoring.storage.location import parse_location
from service.scoring.storage.object_store import open_store
from tests.service.scoring.object_server import ROOT, ObjectServer


def folder_at(server: ObjectServer, path: str = "out") -> ObjectFolder:
    return ObjectFolder(parse_location(server.uri(path), option="--output"))


def test_a_store_without_conditional_writes_is_refused(store: ObjectServer) -> None:
    if store.scheme == "az":
        pytest.skip("the signature of a request to Azure holds its conditions")
    store.faults("conditions=ignored")
    place = store.place("out")
    with pytest.raises(ScoringError, match=rf"^--output {place}: the store ignores the conditions of writes"):
        folder_at(store).prepare()
    assert store.list_keys() == []


def test_preparing_leaves_no_probe(store: ObjectServer) -> None:
    folder_at(store).prepare()
    assert store.list_keys() == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_repeated_requests_create_once(when: str, store: ObjectServer) -> None:
    """Also when the answer of the first request was lost."""
    folder = folder_at(store)
    store.faults(f"every=2&when={when}")
    for number in range(6):
        assert folder.create(f"{number}", b"1")
        assert not folder.create(f"{number}", b"2")
        assert folder.read(f"{number}") == b"1"


def test_a_whole_bucket_can_be_the_output(store: ObjectServer) -> None:
    folder = folder_at(store, "")
    folder.prepare()
    folder.write("predictions/a", b"1")
    assert store.list_keys() == ["predictions/a"]
    assert folder.sizes() == folder.sizes("predictions/") == {"predictions/a": 1}


def test_listing_a_folder_leaves_out_its_namesakes(store: ObjectServer) -> None:
    store.put("out2/a", b"1")
    store.put("out/a", b"1")
    assert folder_at(store).sizes() == {"a": 1}


def test_large_parts_are_sent_in_several_requests(store: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_folder, "SINGLE_PUT_BYTES", 6 << 20)
    monkeypatch.setattr(object_folder, "UPLOAD_BYTES", 5 << 20)
    content = random.Random(0).randbytes(12 << 20)
    store.faults("every=4")
    with closing(folder_at(store)) as folder:
        written = folder.work_path("00000-000000.csv")
        written.write_bytes(content)
        folder.publish({"predictions/a": written})
    store.faults()
    assert store.read("out/predictions/a") == content
    if store.scheme != "az":  # whose ETag does not tell
        e_tag = open_store(parse_location(store.uri(""), option="--input")).head("out/predictions/a")["e_tag"]
        assert e_tag.strip('"').endswith("-3")


def test_a_failed_upload_is_removed(server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(object_folder, "SINGLE_PUT_BYTES", 6 << 20)
    monkeypatch.setattr(object_folder, "UPLOAD_BYTES", 5 << 20)
    folder = folder_at(server)
    written = tmp_path / "part"
    written.write_bytes(bytes(12 << 20))
    server.faults("parts=refused")
    with pytest.raises(OSError, match="s3://data/out/predictions/a: "):
        folder.publish({"predictions/a": written})
    server.faults()
    assert server.list_keys() == []
    assert server.client.list_multipart_uploads(Bucket="data").get("Uploads", []) == []


def test_a_killed_process_leaves_no_work_files(store: ObjectServer, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from service.scoring.output.object_folder import ObjectFolder\n"
        "from service.scoring.storage.location import parse_location\n"
        "folder = ObjectFolder(parse_location(sys.argv[1], option='--output'))\n"
        "folder.work_path('00000-000000.csv').write_bytes(bytes(1000))\n"
        "os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.run([sys.executable, "-c", code, store.uri("out")], env=environment, cwd=ROOT, check=False)
    assert process.returncode == -9
    assert list(tmp_path.iterdir()) == []
