"""Keys cover everything that decides a shard, and unreadable files are reported."""

import gzip
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.scoring.input.files import list_files
from service.scoring.plan import PlannedFile, ReadError, Shard, SharedShard, columns_to_read, format_error, plan
from tests.service.scoring.inputs import texts, write_csv
from tests.service.scoring.test_job import job_of


def planned(tmp_path: Path, **options: object) -> list[Shard | PlannedFile | ReadError]:
    files = list_files([str(tmp_path / "in")], output=Path("/nowhere"), input_format=None)
    items = plan({0: job_of(tmp_path / "out", **options)}, files)
    return [item.first if isinstance(item, SharedShard) else item for item in items]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i, name in enumerate("ab"):
        write_csv(tmp_path / "in" / f"{name}.csv", {"id": range(10), "text": texts(10, seed=i)})
    return tmp_path


def test_shards_are_numbered_within_their_file(folder: Path) -> None:
    items = planned(folder)
    assert [item.name for item in items if isinstance(item, Shard)] == [
        f"0000{f}-00000{n}" for f in (0, 1) for n in range(3)
    ]
    assert [(item.file.name, item.shards) for item in items if isinstance(item, PlannedFile)] == [
        ("a.csv", 3),
        ("b.csv", 3),
    ]


def test_files_have_the_numbers_of_their_names(folder: Path) -> None:
    files = list_files([str(folder / "in")], output=Path("/nowhere"), input_format=None)
    items = list(plan({0: job_of(folder / "out")}, files, {"b.csv": 0, "a.csv": 7}))
    assert [item.first.name for item in items if isinstance(item, SharedShard)] == [
        f"0000{f}-00000{n}" for f in (7, 0) for n in range(3)
    ]
    assert [item.file_number for item in items if isinstance(item, PlannedFile)] == [7, 0]


def test_key_changes_with_every_option_and_every_byte(folder: Path) -> None:
    def keys(**options: object) -> list[str]:
        return [item.key for item in planned(folder, **options) if isinstance(item, Shard)]

    before = keys()
    assert keys() == before
    assert not set(keys(request={"top_k": 2})) & set(before)
    assert not set(keys(version="1" * 12)) & set(before)
    content = (folder / "in" / "b.csv").read_bytes()
    (folder / "in" / "b.csv").write_bytes(content[:-3] + b"X" + content[-2:])
    after = keys()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * 5 + [False]


def test_parts_of_shifted_row_groups_have_other_keys(tmp_path: Path) -> None:
    """Row groups of 4 and 8 rows, or of 6 and 8, in shards of 2; the bytes of the last group are the same."""

    def keys(first: int) -> dict[int, str]:
        schema = pa.schema([("text", pa.string())])
        (tmp_path / "in").mkdir(exist_ok=True)
        with pq.ParquetWriter(tmp_path / "in" / "a.parquet", schema) as writer:
            for group in (texts(first), texts(8, seed=1)):
                writer.write_table(pa.table({"text": group}, schema=schema))
        items = planned(tmp_path, shard_rows=2, input_format="parquet")
        return {item.span.first_row: item.key for item in items if isinstance(item, Shard)}

    before, after = keys(4), keys(6)
    assert keys(4) == before
    assert not [row for row in range(6, 12, 2) if before[row] == after[row]]


@pytest.mark.parametrize(("limit", "rows"), [(0, []), (3, [3]), (4, [4]), (11, [4, 4, 2, 1]), (99, [4, 4, 2, 4, 4, 2])])
def test_limit_cuts_the_plan(limit: int, rows: list[int], folder: Path) -> None:
    assert [item.span.rows for item in planned(folder, limit=limit) if isinstance(item, Shard)] == rows


def test_truncated_file_is_reported_and_the_next_file_is_planned(folder: Path) -> None:
    (folder / "in" / "a.csv").unlink()
    content = b"id,text\n" + b"".join(b"%d,some text %d\n" % (i, i * i) for i in range(100_000))
    (folder / "in" / "a.csv.gz").write_bytes(gzip.compress(content)[:-9000])
    items = planned(folder, shard_rows=1000)
    [fault] = [item for item in items if isinstance(item, ReadError)]
    assert str(fault).startswith("a.csv.gz: OSError: Truncated compressed stream")
    shards = [item for item in items if isinstance(item, Shard)]
    assert len([shard for shard in shards if shard.file.name == "a.csv.gz"]) > 50
    assert [shard.name for shard in shards if shard.file.name == "b.csv"] == ["00001-000000"]


def test_missing_column_in_a_later_file_stops_the_plan(folder: Path) -> None:
    (folder / "in" / "b.csv").write_bytes(b"id,body\n1,x\n")
    with pytest.raises(Exception, match=r"b\.csv: no column 'text'; available: 'id', 'body'"):
        planned(folder)


def test_shard_round_trips_through_json(folder: Path) -> None:
    import json

    for item in planned(folder):
        if isinstance(item, Shard):
            assert Shard.from_json(json.loads(json.dumps(asdict(item)))) == item


def test_only_needed_columns_are_read(tmp_path: Path) -> None:
    columns = ("a", "text", "id", "b")
    assert columns_to_read(job_of(tmp_path), columns) == ("text",)
    assert columns_to_read(job_of(tmp_path, id_column="id", keep=("b",)), columns) == ("text", "id", "b")
    assert columns_to_read(job_of(tmp_path, keep=("*",)), columns) == columns


def test_format_error_returns_one_line() -> None:
    assert format_error(ValueError("one\ntwo")) == "ValueError: one"
    assert format_error(FileNotFoundError(2, "No such file", "/x")) == "FileNotFoundError: No such file: /x"
    assert format_error(ReadError("a.csv: gone")) == "a.csv: gone"
