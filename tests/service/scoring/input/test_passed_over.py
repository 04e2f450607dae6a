"""Files that are not scored are counted by suffix."""

from pathlib import Path

import pytest

from service.scoring.input.files import InputFile
from service.scoring.input.passed_over import count_passed_over, other_kind


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


def test_files_below_the_inputs_are_counted_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a.csv", "b.txt", "sub/c.TXT", ".git/config", "_SUCCESS", "out/predictions/x.parquet", "noise"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    file = InputFile(uri=str(folder / "a.csv"), name="a.csv", format="csv", size=0, fingerprint="")
    inputs = [str(folder), str(folder) + "/", str(folder / "a.csv"), "s3://bucket/x"]
    counts = count_passed_over(inputs, [file], output=folder / "out")
    assert counts == {".txt": 2, "hidden": 2, "no suffix": 1}
