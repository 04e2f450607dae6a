"""The contract of an output folder, for a file system and for an object store."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.scoring.job import ScoringError
from service.scoring.output.folder import OutputFolder
from service.scoring.output.ledger import open_folder
from service.scoring.storage.location import Location, parse_location
from tests.service.scoring.object_server import ObjectServer


@pytest.fixture(params=["local", "remote"])
def location(request: pytest.FixtureRequest, server: ObjectServer, tmp_path: Path) -> Location:
    place = str(tmp_path / "out") if request.param == "local" else server.uri("some/out")
    return parse_location(place, option="--output")


@pytest.fixture
def folder(location: Location) -> Iterator[OutputFolder]:
    with closing(open_folder(location)) as folder:
        folder.prepare()
        yield folder


def publish(folder: OutputFolder, name: str, content: bytes) -> None:
    written = folder.work_path("00000-000000.part")
    written.write_bytes(content)
    folder.publish({name: written})


def test_files_are_created_once(folder: OutputFolder) -> None:
    assert folder.create("_ledger/job.json", b"1")
    assert folder.create("_ledger/job.json", b"1")
    assert not folder.create("_ledger/job.json", b"2")
    assert folder.read("_ledger/job.json") == b"1"


def test_files_are_replaced_and_deleted(folder: OutputFolder) -> None:
    folder.write("summary.json", b"1")
    folder.write("summary.json", b"22", sync=True)
    assert folder.read("summary.json") == b"22"
    assert folder.sizes()["summary.json"] == 2
    folder.delete("summary.json")
    folder.delete("summary.json")
    with pytest.raises(FileNotFoundError):
        folder.read("summary.json")


def test_records_are_read_together(folder: OutputFolder) -> None:
    names = [f"_ledger/shards/00000-{number:06d}.json" for number in range(40)]
    for name in names:
        folder.commit(name, name.encode())
    assert list(folder.read_all([*names, "_ledger/shards/none"])) == [*(name.encode() for name in names), None]
    folder.preload("_ledger/shards/")
    assert list(folder.read_all(names)) == [name.encode() for name in names]
    assert sorted(folder.sizes("_ledger/shards/")) == names
    with pytest.raises(FileNotFoundError):
        folder.read("_ledger/shards/none")


def test_a_damaged_record_is_replaced(folder: OutputFolder) -> None:
    folder.write("_ledger/shards/00000-000000.json", b"{")
    folder.commit("_ledger/shards/00000-000000.json", b"{}")
    assert folder.read("_ledger/shards/00000-000000.json") == b"{}"


def test_parts_are_published_as_a_whole_and_their_damage_is_seen(folder: OutputFolder) -> None:
    publish(folder, "predictions/a.csv", b"first")
    publish(folder, "predictions/a.csv", b"row\n")
    digest = folder.sha256("predictions/a.csv")
    assert folder.sizes("predictions/") == {"predictions/a.csv": 4}

    def is_intact(*, verify: bool = False) -> bool:
        return folder.is_intact("predictions/a.csv", size=4, sha256=digest, verify=verify)

    assert is_intact()
    assert is_intact(verify=True)
    publish(folder, "predictions/a.csv", b"raw\n")
    assert not is_intact(verify=True)
    publish(folder, "predictions/a.csv", b"ro")
    assert not is_intact()
    folder.delete("predictions/a.csv")
    assert not is_intact()
    assert not is_intact(verify=True)


def test_locks_are_given_back(folder: OutputFolder) -> None:
    for name in ("00001-000002", "finish"):
        assert folder.try_lock(name)
        folder.unlock(name)
        assert folder.try_lock(name)
    folder.close()


def test_work_files_leave_no_trace(folder: OutputFolder) -> None:
    assert folder.try_lock("00000-000000")
    folder.work_path("00000-000000.csv").write_text("half")
    folder.unlock("00000-000000")
    folder.clear_work()
    assert [name for name in folder.sizes() if not name.endswith("/lock")] == []


def test_a_place_with_other_files_is_refused(location: Location) -> None:
    folder = open_folder(location)
    folder.prepare()
    folder.write("notes.txt", b"x")
    with pytest.raises(ScoringError, match=r"is not empty \(notes.txt\) and holds no scoring job"):
        folder.prepare()
