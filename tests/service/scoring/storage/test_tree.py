"""Local folders and object stores answer alike through the interface of a tree."""

from pathlib import Path

import pytest

from service.scoring.storage.listing import open_tree
from service.scoring.storage.location import Location, parse_location
from service.scoring.storage.pattern import Pattern
from tests.service.scoring.object_server import ObjectServer


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, server: ObjectServer, tmp_path: Path) -> Location:
    for name in ("a-b.csv", "a/x.csv", "a/y/z.csv", "a.csv"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    server.upload(tmp_path / "in", "in")
    return parse_location(str(tmp_path / "in") if request.param == "local" else server.uri("in"), option="--input")


def test_files_come_in_the_order_of_their_names(folder: Location) -> None:
    found = list(open_tree(folder).walk(folder.path, Pattern(""), excluded=None))
    assert [name for name, _ in found] == ["a/x.csv", "a/y/z.csv", "a-b.csv", "a.csv"]
    assert [status.size for _, status in found] == [7, 9, 7, 5]


def test_status_is_that_of_files_alone(folder: Location) -> None:
    tree = open_tree(folder)
    [(_, listed)] = tree.walk(folder.path, Pattern("a.csv"), excluded=None)
    assert tree.status(folder.child("a.csv").path) == listed
    assert tree.status(folder.path) is None
    assert tree.status(folder.child("a").path) is None
    assert tree.status(folder.child("none").path) is None
    assert tree.status(folder.child("a.csv/none").path) is None


def test_small_files_are_read_as_a_whole(folder: Location) -> None:
    tree, path = open_tree(folder), folder.child("a.csv").path
    assert tree.read_small(path, 5) == b"a.csv"
    assert tree.read_small(path, 4) is None
    with pytest.raises(FileNotFoundError):
        tree.read_small(folder.child("none").path, 4)


def test_pyarrow_reads_through_the_file_system(folder: Location) -> None:
    system, prefix = open_tree(folder).file_system()
    with system.open_input_file(prefix + folder.child("a/y/z.csv").path) as file:
        file.seek(2)
        assert file.read(3) == b"y/z"
        assert file.size() == 9
