"""Keys that cover everything, and files that cannot be read to their end."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.scoring.files import find_files
from service.scoring.plan import Planned, ReadError, Shard, describe, plan, wanted_columns
from tests.service.scoring.inputs import texts, write_csv
from tests.service.scoring.test_job import job_of


def planned(tmp_path: Path, **options: object) -> list[Shard | Planned | ReadError]:
    files = find_files([str(tmp_path / "in")], output=Path("/nowhere"), wanted=None)
    return list(plan(job_of(tmp_path / "out", **options), files))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i, name in enumerate("ab"):
        write_csv(tmp_path / "in" / f"{name}.csv", {"id": range(10), "text": texts(10, seed=i)})
    return tmp_path


def test_shards_are_numbered_inside_their_file(folder: Path) -> None:
    items = planned(folder)
    assert [item.name for item in items if isinstance(item, Shard)] == [
        f"0000{f}-00000{n}" for f in (0, 1) for n in range(3)
    ]
    assert [(item.file.name, item.shards) for item in items if isinstance(item, Planned)] == [
        ("a.csv", 3),
        ("b.csv", 3),
    ]


def test_a_key_changes_with_any_option_and_any_byte(folder: Path) -> None:
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


def test_another_part_of_a_row_group_in_the_same_place_has_another_key(tmp_path: Path) -> None:
    """12 rows that are groups of 4 and 8, or of 6 and 8, in shards of 2: the last group's bytes are the same."""

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
def test_a_limit_cuts_the_plan(limit: int, rows: list[int], folder: Path) -> None:
    assert [item.span.rows for item in planned(folder, limit=limit) if isinstance(item, Shard)] == rows


def test_a_file_that_ends_too_early_is_noted_and_the_next_is_planned(folder: Path) -> None:
    (folder / "in" / "a.csv").unlink()
    content = b"id,text\n" + b"".join(b"%d,some text %d\n" % (i, i * i) for i in range(100_000))
    (folder / "in" / "a.csv.gz").write_bytes(gzip.compress(content)[:-9000])
    items = planned(folder, shard_rows=1000)
    [fault] = [item for item in items if isinstance(item, ReadError)]
    assert str(fault).startswith("a.csv.gz: OSError: Truncated compressed stream")
    shards = [item for item in items if isinstance(item, Shard)]
    assert len([shard for shard in shards if shard.file.name == "a.csv.gz"]) > 50
    assert [shard.name for shard in shards if shard.file.name == "b.csv"] == ["00001-000000"]


def test_a_file_without_the_column_stops_the_job(folder: Path) -> None:
    (folder / "in" / "b.csv").write_bytes(b"id,body\n1,x\n")
    with pytest.raises(Exception, match=r"b\.csv: no column 'text'; there are 'id', 'body'"):
        planned(folder)


def test_a_shard_survives_the_way_to_a_worker(folder: Path) -> None:
    import json

    for item in planned(folder):
        if isinstance(item, Shard):
            assert Shard.from_json(json.loads(json.dumps(item.to_json()))) == item


def test_only_what_is_used_is_read(tmp_path: Path) -> None:
    columns = ("a", "text", "id", "b")
    assert wanted_columns(job_of(tmp_path), columns) == ("text",)
    assert wanted_columns(job_of(tmp_path, id_column="id", keep=("b",)), columns) == ("text", "id", "b")
    assert wanted_columns(job_of(tmp_path, keep=("*",)), columns) == columns


def test_errors_fit_in_a_line() -> None:
    assert describe(ValueError("one\ntwo")) == "ValueError: one"
    assert describe(FileNotFoundError(2, "No such file", "/x")) == "FileNotFoundError: No such file: /x"
    assert describe(ReadError("a.csv: gone")) == "a.csv: gone"
