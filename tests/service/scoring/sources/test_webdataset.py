"""WebDataset archives: samples of several files."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.scoring.input.rows import MAX_ROW_BYTES
from service.scoring.job import ScoringError
from tests.service.scoring.conftest import Score
from tests.service.scoring.inputs import images, png
from tests.service.scoring.sources.conftest import Read, read_all, spans_of


def write(path: Path, files: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(count: int) -> list[tuple[str, bytes]]:
    return [
        file
        for i in range(count)
        for file in (
            (f"train/{i:04d}.jpg", b"\xff\xd8\xff" + bytes([i])),
            (f"train/{i:04d}.cls", str(i).encode()),
            (f"train/{i:04d}.meta.json", json.dumps({"n": i}).encode()),
        )
    ]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_sample_is_one_row_with_its_key(name: str, size: int, tmp_path: Path) -> None:
    mode = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tar.xz": "w:xz"}[name]
    path = write(tmp_path / name, samples(20), mode)
    found = read_all(path, size, input_format="webdataset")
    assert [(number, values, fault) for number, values, fault in found] == [
        (
            i,
            {
                "key": f"train/{i:04d}",
                "image": b"\xff\xd8\xff" + bytes([i]),
                "cls": str(i),
                "meta.json": json.dumps({"n": i}),
            },
            None,
        )
        for i in range(20)
    ]


def test_a_sample_without_a_file_or_with_two_of_one_column_is_one_fault(read: Read, tmp_path: Path) -> None:
    files = samples(4)
    del files[4]  # 0001.cls
    files.insert(6, ("train/0002.png", b"\x89PNG"))
    found = read(write(tmp_path / "a.tar", files), input_format="webdataset")
    assert [fault for _, _, fault in found] == [
        None, "sample 'train/0001' has no cls", "two files for 'image'", None,
    ]  # fmt: skip


def test_litter_is_no_sample(read: Read, tmp_path: Path) -> None:
    files = [
        ("__MACOSX/0000.jpg", b"x"),
        (".DS_Store", b"x"),
        ("train/._0000.jpg", b"x"),
        ("README", b"x"),
        *samples(2),
    ]
    found = read(write(tmp_path / "a.tar", files), input_format="webdataset")
    assert [values["key"] for _, values, _ in found] == ["train/0000", "train/0001"]


def test_a_sample_that_is_too_large_is_one_fault(read: Read, tmp_path: Path) -> None:
    files = [*samples(1), ("train/0001.jpg", bytes(MAX_ROW_BYTES + 1)), ("train/0001.cls", b"1")]
    found = read(write(tmp_path / "a.tar", files), input_format="webdataset")
    assert found[0][2] is None
    assert "at most" in str(found[1][2])


def test_the_digest_covers_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for number, change in enumerate([("", b""), (".x", b""), ("", b"1")]):
        files = [(name + change[0], content + change[1]) for name, content in samples(2)]
        path = write(tmp_path / f"{number}.tar", files)
        digests.add(spans_of(path, 9, input_format="webdataset")[0].digest)
    assert len(digests) == 3


def test_a_truncated_archive_is_an_error(read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [("a.txt", b"x" * 50_000)])
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises((EOFError, tarfile.TarError, OSError)):
        read(path, input_format="webdataset")


def test_a_first_sample_with_a_fault_names_it(read: Read, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="sample 'a': two files for 'image'"):
        read(write(tmp_path / "a.tar", [("a.jpg", b"x"), ("a.png", b"x")]), input_format="webdataset")


def test_columns_are_texts_or_bytes_as_in_the_first_sample(read: Read, tmp_path: Path) -> None:
    files = [("0.jpg", b"\xff\xd8"), ("0.cls", b"a"), ("0.raw", b"\xff"), ("1.jpg", b"\xff\xd8")]
    files += [("1.cls", b"\xff"), ("1.raw", b"b")]
    found = read(write(tmp_path / "a.tar", files), input_format="webdataset")
    assert [(values["cls"], values["raw"], fault) for _, values, fault in found] == [
        ("a", b"\xff", None),
        (None, b"b", "sample '1': cls is not UTF-8, as in the first sample"),
    ]


@pytest.mark.parametrize("sink", ["parquet", "csv", "jsonl"])
def test_a_job_copies_the_files_of_samples_and_counts_the_others(sink: str, score: Score, tmp_path: Path) -> None:
    files = [file for i, image in enumerate(images(20)) for file in ((f"{i}.png", png(image)), (f"{i}.cls", b"c"))]
    path = write(tmp_path / "a.tar", [("._x.png", b"x"), ("README", b"x"), *files])
    result = score(
        "image-classifier",
        path,
        tmp_path / "out",
        input_format="webdataset",
        output_format=sink,
        id_column="key",
        keep=("cls",),
    )
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["passed_over"]) == (20, {"hidden": 1, "no suffix": 1})
    table = result.to_table()
    assert [str(key) for key in table["key"].to_pylist()] == [str(i) for i in range(20)]
    assert set(table["cls"].to_pylist()) == {"c"}
