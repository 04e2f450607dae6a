"""Parquet files are whole, private and bounded in space."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.http.telemetry.capture import files
from service.http.telemetry.capture.files import PATTERN, ParquetFiles
from tests.service.http.telemetry.capture.test_rows import rows


def named(*texts: str) -> list[Any]:
    return [row for text in texts for row in rows({"texts": [text]}, None, "texts")]


def test_each_version_has_its_files_and_only_the_user_may_read_them(tmp_path: Path) -> None:
    written = ParquetFiles(tmp_path / "a" / "b", max_bytes=1 << 20)
    written.add("m", "v", named("x", "y"))
    written.add("n", "w", named("z"))
    assert not list((tmp_path / "a" / "b").glob(PATTERN))
    written.close()
    (first,), (second,) = ((tmp_path / "a" / "b" / name).glob("*.parquet") for name in "mn")
    assert pq.read_table(first)["text"].to_pylist() == ["x", "y"]
    assert pq.read_table(second)["ekiben_version"].to_pylist() == ["v"]
    for path in (first, first.parent, first.parent.parent):
        assert path.stat().st_mode & 0o77 == 0
    written.close()
    assert len(list((tmp_path / "a" / "b").glob(PATTERN))) == 2


@pytest.mark.parametrize("limit", ["ROTATE_S", "ROTATE_BYTES"])
def test_files_end_by_size_and_by_time(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = ParquetFiles(tmp_path, max_bytes=1 << 20)
    written.add("m", "v", named("x"))
    written.rotate()
    assert not list(tmp_path.glob(PATTERN))
    monkeypatch.setattr(files, limit, 0)
    written.rotate()
    assert len(list(tmp_path.glob(PATTERN))) == 1


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    other = tmp_path / "m" / "mine.parquet"
    other.write_bytes(b"x" * 100_000)
    probe = ParquetFiles(tmp_path, max_bytes=1 << 20)
    probe.add("m", "v", named("0"))
    probe.close()
    (first,) = tmp_path.glob(PATTERN)
    size = first.stat().st_size
    written = ParquetFiles(tmp_path, max_bytes=3 * size + size // 2)
    for number in range(1, 7):
        written.add("m", "v", named(str(number)))
        written.close()
        assert sum(path.stat().st_size for path in tmp_path.glob(PATTERN)) <= 3 * size + size // 2
    left = sorted(text for path in tmp_path.glob(PATTERN) for text in pq.read_table(path)["text"].to_pylist())
    assert left == ["4", "5", "6"]
    assert other.exists(), "files of others stay"
    assert not list(tmp_path.rglob(".ekiben*"))


def test_a_file_larger_than_all_space_is_not_written(tmp_path: Path) -> None:
    written = ParquetFiles(tmp_path, max_bytes=100)
    written.add("m", "v", named("x"))
    written.close()
    assert not list(tmp_path.rglob("*.parquet"))


def test_values_of_several_types_become_json(tmp_path: Path) -> None:
    written = ParquetFiles(tmp_path, max_bytes=1 << 20)
    written.add(
        "m", "v", [row for item in ("aGk=", [[1, 2]], None) for row in rows({"images": [item]}, None, "images")]
    )
    written.close()
    (path,) = tmp_path.glob(PATTERN)
    assert pq.read_table(path)["image"].to_pylist() == ["aGk=", "[[1,2]]", None]


def test_numbers_of_any_size_are_written(tmp_path: Path) -> None:
    numbers = [1, -1, 2**64 - 1, 1.5, None]
    written = ParquetFiles(tmp_path, max_bytes=1 << 20)
    written.add("m", "v", [row for number in numbers for row in rows({"rows": [{"x": number}]}, None, "rows")])
    written.close()
    (path,) = tmp_path.glob(PATTERN)
    assert pq.read_table(path)["x"].to_pylist() == ["1", "-1", "18446744073709551615", "1.5", None]
