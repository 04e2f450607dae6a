"""One version of a Delta table."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from service.scoring.input.delta import open_delta
from service.scoring.job import ScoringError
from tests.service.scoring.lake import delete_rows, log_of, write_delta, write_mapped_delta


@pytest.fixture(autouse=True)
def _no_cache() -> None:
    open_delta.cache_clear()


def test_snapshot_holds_live_files_partitions_and_deleted_rows(tmp_path: Path) -> None:
    columns = {"id": range(6), "day": ["a b", "c/d"] * 3}
    table = write_delta(
        tmp_path / "t", columns, partition_by=["day"], configuration={"delta.enableDeletionVectors": "true"}
    )
    delete_rows(table, 0, [1])
    snapshot = open_delta(str(table), None)
    assert snapshot.version == 1
    assert all(Path(file.uri).is_file() for file in snapshot.files)
    assert {file.partition["day"].as_py() for file in snapshot.files} == {"a b", "c/d"}
    [(uri, deleted)] = snapshot.deleted.items()
    assert uri in {file.uri for file in snapshot.files}
    assert deleted.tolist() == [1]
    assert snapshot.partition_names == {"day"}
    assert open_delta(str(table), 0).deleted == {}


def test_mapped_columns_have_physical_names(tmp_path: Path) -> None:
    content = pa.table({"id": [1, 2], "day": ["x", "x"]})
    table = write_mapped_delta(tmp_path / "t", content, {"id": "col-1", "day": "col-2"}, partition="day")
    snapshot = open_delta(str(table), None)
    assert snapshot.physical == {"id": "col-1", "day": "col-2"}
    assert snapshot.files[0].partition["day"].as_py() == "x"


def test_unknown_feature_is_refused_by_name(tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"id": range(6)})
    lines = [json.loads(line) for line in log_of(table, 0).read_text().splitlines()]
    for line in lines:
        if "protocol" in line:
            features = {"readerFeatures": ["cipher"], "writerFeatures": ["cipher"]}
            line["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
    log_of(table, 0).write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ScoringError, match="cipher"):
        open_delta(str(table), None)


def test_version_that_does_not_exist_is_named(tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"id": range(6)})
    for version in (9, -1):
        with pytest.raises(ScoringError, match=f"the Delta table has no version {version}"):
            open_delta(str(table), version)


def test_missing_package_is_named_with_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_delta(tmp_path / "t", {"id": range(6)})
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ScoringError, match="a Delta table needs the dependency group `tables`"):
        open_delta(str(table), None)
