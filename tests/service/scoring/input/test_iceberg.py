"""One snapshot of an Iceberg table."""

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from service.scoring.input.iceberg import current_metadata, open_iceberg
from service.scoring.job import ScoringError
from tests.service.scoring.lake import Iceberg


def metadata_of(iceberg: Iceberg) -> str:
    return iceberg.table.metadata_location.removeprefix("file://")


def test_snapshot_holds_live_files_and_columns(tmp_path: Path) -> None:
    iceberg = Iceberg(tmp_path, {"id": pa.array(range(6))})
    iceberg.table.append(pa.table({"id": pa.array([7])}))
    first, last = iceberg.table.snapshots()
    iceberg.close()
    assert open_iceberg(metadata_of(iceberg), None).snapshot == last.snapshot_id
    assert [len(open_iceberg(metadata_of(iceberg), i.snapshot_id).tasks) for i in (first, last)] == [1, 2]
    assert all(Path(uri).is_file() for uri in open_iceberg(metadata_of(iceberg), None).tasks)
    assert open_iceberg(metadata_of(iceberg), None).schema.names == ["id"]
    with pytest.raises(ScoringError, match="the Iceberg table has no snapshot 5"):
        open_iceberg(metadata_of(iceberg), 5)


def test_current_snapshot_has_the_current_columns(tmp_path: Path) -> None:
    iceberg = Iceberg(tmp_path, {"id": pa.array(range(6)), "old": pa.array(range(6))})
    first = iceberg.table.current_snapshot()
    iceberg.table.append(pa.table({"id": pa.array([7]), "old": pa.array([7])}))
    last = iceberg.table.current_snapshot()
    with iceberg.table.update_schema() as update:
        update.rename_column("id", "number")
        update.delete_column("old")
    iceberg.close()
    for snapshot in (None, last.snapshot_id):
        assert open_iceberg(metadata_of(iceberg), snapshot).schema.names == ["number"]
    assert open_iceberg(metadata_of(iceberg), first.snapshot_id).schema.names == ["id", "old"]


@pytest.mark.parametrize(
    ("names", "hint", "current"),
    [
        (["00000-a.metadata.json", "00010-b.metadata.json", "00009-c.metadata.json"], None, "00010-b.metadata.json"),
        (["v1.metadata.json", "v2.metadata.json"], "1", "v1.metadata.json"),
        (["v9.metadata.json", "v10.gz.metadata.json"], None, "v10.gz.metadata.json"),
        (["00002-a.metadata.json", "00001-b.metadata.json"], "00001-b.metadata.json", "00001-b.metadata.json"),
    ],
)
def test_current_metadata(names: list[str], hint: str | None, current: str) -> None:
    assert current_metadata(names, hint, "/t") == current


@pytest.mark.parametrize(
    ("names", "hint"), [(["00002-a.metadata.json", "00002-b.metadata.json"], None), (["v1.metadata.json"], "7")]
)
def test_current_metadata_is_not_guessed(names: list[str], hint: str | None) -> None:
    with pytest.raises(ScoringError, match=r"cannot tell the current metadata file .*: pass that file as --input"):
        current_metadata(names, hint, "/t")


def test_missing_package_is_named_with_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiceberg.table", None)
    with pytest.raises(ScoringError, match="an Iceberg table needs the dependency group `tables`"):
        open_iceberg(str(tmp_path / "v1.metadata.json"), None)
