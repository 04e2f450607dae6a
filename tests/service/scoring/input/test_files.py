"""Which files are input, and their names, formats and fingerprints."""

import os
from pathlib import Path

import pytest

from service.scoring.input.files import current_fingerprint, list_files
from service.scoring.job import ScoringError
from tests.service.scoring.inputs import images, png

OUT = Path("/nowhere")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(images(1)[0]) if path.suffix == ".png" else b"x\n")


def names(*inputs: Path | str, output: Path = OUT, input_format: str | None = None) -> list[str]:
    return [file.name for file in list_files([str(path) for path in inputs], output=output, input_format=input_format)]  # type: ignore[arg-type]


def test_folder_yields_its_data_files_in_order(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in ("b/2.csv", "a.csv", "b/1.csv.gz", "_SUCCESS", ".x.csv", "_tmp/y.csv", "notes.md")
        )
    )
    assert names(tmp_path) == ["a.csv", "b/1.csv.gz", "b/2.csv"]


def test_globs_and_file_urls_are_expanded(tmp_path: Path) -> None:
    touch(tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "sub" / "c.csv", tmp_path / "d.jsonl")
    assert names(f"{tmp_path}/*.csv") == ["a.csv", "b.csv"]
    assert names(f"{tmp_path}/**/*.csv") == ["a.csv", "b.csv", "sub/c.csv"]
    assert names(f"file://{tmp_path}/sub") == ["c.csv"]
    assert names(f"file://{tmp_path}/*.csv") == ["a.csv", "b.csv"]


def test_file_listed_twice_is_scored_once(tmp_path: Path) -> None:
    touch(tmp_path / "a.csv")
    assert names(tmp_path, tmp_path / "a.csv") == ["a.csv"]


def test_files_with_equal_names_are_named_by_their_full_path(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a.csv", tmp_path / "y" / "a.csv")
    assert names(tmp_path / "x", tmp_path / "y") == [f"{tmp_path}/x/a.csv", f"{tmp_path}/y/a.csv"]


def test_output_inside_input_is_skipped_and_input_inside_output_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.csv", tmp_path / "out" / "predictions" / "part.csv")
    assert names(tmp_path, output=tmp_path / "out") == ["a.csv"]
    assert names(f"{tmp_path}/**/*.csv", output=tmp_path / "out") == ["a.csv"]
    with pytest.raises(ScoringError, match="lies in the output folder"):
        names(tmp_path / "out" / "predictions", output=tmp_path / "out")
    with pytest.raises(ScoringError, match="lies in the output folder"):
        names(tmp_path, output=tmp_path)


def test_key_value_folders_are_partitions(tmp_path: Path) -> None:
    touch(tmp_path / "day=2026-01-01" / "city=S%C3%A3o%20Paulo" / "a.csv")
    [file] = list_files([str(tmp_path)], output=OUT, input_format=None)
    assert file.partitions == {"day": "2026-01-01", "city": "São Paulo"}


def test_folder_of_images_is_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a" / "1.png", tmp_path / "in" / "2.png")
    [file] = list_files([str(tmp_path / "in")], output=OUT, input_format=None)
    assert (file.name, file.format) == ("in", "images")
    touch(tmp_path / "in" / "3.png")
    assert list_files([str(tmp_path / "in")], output=OUT, input_format=None)[0].fingerprint != file.fingerprint


@pytest.mark.parametrize("target", ["nothing.csv", "*.csv", "empty"])
def test_input_without_files_is_an_error(target: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoringError, match="nothing there to score"):
        names(f"{tmp_path}/{target}")


def test_mixed_formats_are_refused_unless_one_is_chosen(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.csv", tmp_path / "in" / "b.txt")
    with pytest.raises(ScoringError, match=r"several formats: csv \(a.csv\), text \(b.txt\)"):
        names(tmp_path / "in")
    assert names(tmp_path / "in" / "b.txt", input_format="csv") == ["b.txt"]


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "data.bin")
    with pytest.raises(ScoringError, match="say --input-format"):
        names(tmp_path / "data.bin")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("train.csv.zip", "there is .zip: unpack it, or say --input-format"),
        ("book.xlsx", "there is .xlsx: save it as CSV, or say"),
        ("news.db", "there is .db: say --input sqlite:///PATH with --query, or say"),
        ("README", "there is a name without a suffix: say --input-format"),
    ],
)
def test_the_refusal_names_the_suffix_and_what_to_do(name: str, advice: str, tmp_path: Path) -> None:
    touch(tmp_path / name)
    with pytest.raises(ScoringError, match=advice):
        names(tmp_path)


def test_json_is_data_where_nothing_else_is(tmp_path: Path) -> None:
    """As BigQuery and Spark name JSON Lines; beside other files it describes them."""
    touch(tmp_path / "a-0.json", tmp_path / "a-1.json.gz", tmp_path / "notes.md")
    assert names(tmp_path) == names(tmp_path / "*") == ["a-0.json", "a-1.json.gz"]
    assert {file.format for file in list_files([str(tmp_path)], output=OUT, input_format=None)} == {"jsonl"}
    touch(tmp_path / "b.csv")
    assert names(tmp_path) == ["b.csv"]
    assert names(tmp_path / "*.json*") == ["a-0.json", "a-1.json.gz"]


def test_links_to_files_are_read_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "a.csv")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.csv").symlink_to(tmp_path / "real" / "a.csv")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.csv").symlink_to(tmp_path / "nowhere.csv")
    assert names(tmp_path / "in") == ["link.csv"]


def test_special_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ScoringError, match="not a regular file"):
        names(tmp_path / "pipe.csv")


def test_name_that_is_not_utf8_is_refused_unless_it_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "a.csv")
    (tmp_path / "caf\udce9.d\udce9").touch()
    assert names(tmp_path) == ["a.csv"]
    (tmp_path / "caf\udce9.csv").touch()
    with pytest.raises(ScoringError, match=r"caf\\xe9.csv: the name is not UTF-8: rename the file"):
        names(tmp_path)


def test_fingerprint_changes_with_every_write(tmp_path: Path) -> None:
    touch(tmp_path / "a.csv")
    [file] = list_files([str(tmp_path / "a.csv")], output=OUT, input_format=None)
    assert current_fingerprint(file) == file.fingerprint
    times = (tmp_path / "a.csv").stat()
    (tmp_path / "a.csv").write_bytes(b"y\n")
    os.utime(tmp_path / "a.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert current_fingerprint(file) != file.fingerprint


def test_unknown_file_system_is_reported() -> None:
    with pytest.raises(ScoringError, match="nosuch://"):
        names("nosuch://bucket/a.csv")
