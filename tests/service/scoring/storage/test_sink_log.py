"""What a log of Spark's streaming sink says of the files beside it."""

import json
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from service.scoring.job import ScoringError
from service.scoring.storage.sink_log import SinkLog


def entry(path: str, action: str = "add") -> str:
    fields = {"size": 458, "isDir": False, "modificationTime": 1_700_000_000_000, "blockReplication": 1}
    return json.dumps({"path": path, **fields, "blockSize": 33_554_432, "action": action})


def write_log(folder: Path, **batches: str) -> None:
    log = folder / "_spark_metadata"
    log.mkdir(parents=True, exist_ok=True)
    for name, content in batches.items():
        (log / name.removeprefix("b").replace("_", ".")).write_text(content)


def batch(*entries: str) -> str:
    return "\n".join(["v1", *entries])


def open_log(folder: Path) -> SinkLog:
    return SinkLog(pafs.LocalFileSystem(), str(folder))


def test_batches_name_the_files(tmp_path: Path) -> None:
    write_log(
        tmp_path, b0=batch(entry("file:///sink/a.csv")), b1=batch(), b2=batch(entry("file:///sink/day%3D1/b%20c.csv"))
    )
    (tmp_path / "_spark_metadata" / ".3.tmp").write_text("half")
    log = open_log(tmp_path)
    assert log.holds("a.csv")
    assert log.holds("day=1/b c.csv")
    for other in ("b.csv", "day=2/b c.csv", "b c.csv/a.csv", "xa.csv"):
        assert not log.holds(other), other


def test_a_compacted_batch_stands_for_all_before(tmp_path: Path) -> None:
    write_log(
        tmp_path,
        b8=batch(entry("file:///sink/lost.csv")),
        b9_compact=batch(entry("file:///sink/a.csv"), entry("file:///sink/b.csv")),
        b10=batch(entry("file:///sink/b.csv", "delete"), entry("file:///sink/c.csv")),
    )
    log = open_log(tmp_path)
    assert [log.holds(name) for name in ("lost.csv", "a.csv", "b.csv", "c.csv")] == [False, True, False, True]


@pytest.mark.parametrize(
    ("batches", "reason"),
    [
        ({"b0": batch(), "b2": batch()}, "batch 1 is not there"),
        ({"b9_compact": batch(), "b11": batch()}, "batch 10 is not there"),
        ({"b0": "v2\n"}, "expected the version v1, got 'v2'"),
        ({"b0": ""}, "not enough values"),
        ({"b0": batch("{")}, "Expecting property name"),
        ({"b0": batch("{}")}, "'path'"),
    ],
)
def test_what_is_no_whole_log_is_refused(tmp_path: Path, batches: dict[str, str], reason: str) -> None:
    write_log(tmp_path, **batches)
    with pytest.raises(ScoringError, match=f"--input {tmp_path}: _spark_metadata is no log .*{reason}"):
        open_log(tmp_path)
