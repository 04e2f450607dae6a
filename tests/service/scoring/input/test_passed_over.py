"""Files that are not scored are counted by suffix."""

from pathlib import Path

import pytest

from service.scoring.input.files import InputFile, list_files
from service.scoring.input.passed_over import count_passed_over, other_kind
from service.scoring.input.tables import list_inputs
from service.scoring.storage.location import parse_location
from tests.service.scoring.lake import write_delta


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", None),
        ("./a.JPG", None),
        ("sub/../a.jfif", None),
        ("._a.png", "hidden"),
        ("__MACOSX/._a.png", "hidden"),
        ("_tmp/a.png", "hidden"),
        (".DS_Store", "hidden"),
        ("Thumbs.db", ".db"),
        ("README", "no suffix"),
    ],
)
def test_kind_of_a_file(name: str, kind: str | None) -> None:
    assert other_kind(name) == kind


def test_suffixes_are_texts_whatever_the_name_is() -> None:
    assert other_kind("a.caf\udce9") == ".caf\\xe9"


def test_files_below_the_inputs_are_counted_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a.csv", "b.txt", "sub/c.TXT", ".git/config", "_SUCCESS", "out/predictions/x.parquet", "noise"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    file = InputFile(uri=str(folder / "a.csv"), name="a.csv", format="csv", size=0, fingerprint="")
    inputs = [str(folder), str(folder) + "/", str(folder / "a.csv"), "s3://bucket/x"]
    output = parse_location(str(folder / "out"), option="--output")
    counts = count_passed_over(inputs, [file], output=output)
    assert counts == {".txt": 2, "hidden": 2, "no suffix": 1}


@pytest.mark.parametrize("form", ["{0}/link", "{0}/link/", "file://{0}/link", "{0}/in/../link"])
def test_a_linked_folder_is_counted_by_the_names_that_its_files_have(form: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for name in ("a.csv", "b.bin"):
        (tmp_path / "in" / name).write_text("a\n1\n")
    text = form.format(tmp_path)
    files = list_files([text], output=tmp_path / "out", input_format=None)
    output = parse_location(str(tmp_path / "out"), option="--output")
    assert count_passed_over([text], files, output=output) == {".bin": 1}


def test_a_linked_table_is_not_counted(tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"id": range(6)})
    write_delta(table, {"id": range(3)}, mode="overwrite")
    (tmp_path / "link").symlink_to(table)
    files = list_inputs([str(tmp_path / "link")], output=tmp_path / "out", input_format=None)
    output = parse_location(str(tmp_path / "out"), option="--output")
    assert count_passed_over([str(tmp_path / "link")], files, output=output) == {}
