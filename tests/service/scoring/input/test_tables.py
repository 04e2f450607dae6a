"""Tables among the inputs are found, in any form of the path."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from service.scoring.input.files import InputFile
from service.scoring.input.tables import list_inputs, split_version
from service.scoring.job import ScoringError
from tests.service.scoring.inputs import write_parquet
from tests.service.scoring.lake import Iceberg, write_delta
from tests.service.scoring.object_server import ObjectServer
from tests.service.scoring.storage.test_sink_log import batch, entry, write_log


def listed(*inputs: object) -> list[InputFile]:
    return list_inputs([str(text) for text in inputs], output=Path("/nowhere"), input_format=None)


@pytest.mark.parametrize(
    ("text", "rest", "version"),
    [
        ("a", "a", None),
        ("a?version=3", "a", 3),
        ("s3://b/t?region=x&version=3", "s3://b/t?region=x", 3),
        ("s3://b/t?version=3&region=x", "s3://b/t?region=x", 3),
        ("a?version=x", "a?version=x", None),
    ],
)
def test_version_is_an_option_of_the_input(text: str, rest: str, version: int | None) -> None:
    assert split_version(text) == (rest, version)


def test_delta_table_in_any_form_of_the_path(tmp_path: Path) -> None:
    table = write_delta(tmp_path / "lake" / "t", {"id": range(3)})
    write_delta(table, {"id": range(3)}, mode="append")
    expected = [(file.uri, file.format, file.table) for file in listed(table)]
    assert len(expected) == 2
    assert {file.name.partition("/")[0] for file in listed(table)} == {"t@1"}
    (tmp_path / "link").symlink_to(table)
    for text in (f"{table}/", f"file://{table}", os.path.relpath(table), table.parent, f"{table.parent}/"):
        assert [(file.uri, file.format, file.table) for file in listed(text)] == expected, text
    assert [(file.uri, file.table) for file in listed(tmp_path / "link")] == [(uri, name) for uri, _, name in expected]
    assert len(listed(f"{table}?version=0")) == 1


def test_iceberg_table_by_its_folder_or_metadata_file(tmp_path: Path) -> None:
    iceberg = Iceberg(tmp_path, {"id": pa.array(range(6))})
    iceberg.table.append(pa.table({"id": pa.array([7])}))
    iceberg.close()
    metadata = sorted((iceberg.path / "metadata").glob("*.metadata.json"))
    assert len(listed(iceberg.path)) == len(listed(tmp_path)) == len(listed(metadata[-1])) == 2
    assert len(listed(metadata[1])) == 1
    assert all(file.format == "iceberg" and "@" in file.name for file in listed(iceberg.path))


def test_iceberg_table_that_was_copied_is_refused(tmp_path: Path) -> None:
    iceberg = Iceberg(tmp_path / "wh", {"id": pa.array(range(6))})
    iceberg.close()
    shutil.copytree(iceberg.path, tmp_path / "copy")
    with pytest.raises(ScoringError, match="it was copied or moved, so its paths lead elsewhere"):
        listed(tmp_path / "copy")


def test_lost_data_file_is_named(tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"id": range(3)})
    next(table.glob("*.parquet")).unlink()
    with pytest.raises(ScoringError, match="a data file of the table is not there"):
        listed(table)


def test_two_tables_of_one_input_are_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_delta(tmp_path / "lake" / name, {"id": range(3)})
    assert [file.name.partition("/")[0] for file in listed(tmp_path / "lake")] == ["a@0", "b@0"]


def test_table_beside_plain_files_is_refused(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", {"id": range(3)})
    write_parquet(tmp_path / "loose.parquet", {"id": range(3)})
    with pytest.raises(ScoringError, match=r"--input holds several formats: delta .*, parquet"):
        listed(tmp_path)


def test_version_of_what_is_no_table_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": range(3)})
    with pytest.raises(ScoringError, match="is for Delta and Iceberg tables, and this is none"):
        listed(f"{tmp_path}?version=1")


def test_table_without_rows_is_an_error(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    table = write_delta(tmp_path / "t", {"id": range(3)})
    DeltaTable(table).delete()
    with pytest.raises(ScoringError, match="the table has no rows"):
        listed(table)


def test_a_remote_table_is_read_by_the_environment_and_refused_with_options(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_delta(tmp_path / "t", {"id": range(3)})
    expected = [file.name for file in listed(table)]
    server.upload(Path(table), "lake/t")
    for form in ("lake/t", "lake/t/", "lake/t/**", "lake", "lake/*", "lake/t/*.parquet"):
        with pytest.raises(ScoringError, match=r"s3://data/lake/t: a table \(delta\) takes the options .* environment"):
            listed(server.uri(form))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    for form in ("lake/t", "lake/t/", "lake"):
        assert [file.name for file in listed(f"s3://data/{form}")] == expected
    with pytest.raises(ScoringError, match=r"\.parquet: belongs to the table s3://data/lake/t, pass that folder"):
        listed("s3://data/lake/t/*.parquet")


@pytest.mark.parametrize("name", ["delta", "iceberg"])
def test_a_file_of_no_table_is_not_read_as_one(name: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"id": range(3)})
    for text in (path, tmp_path):
        with pytest.raises(ScoringError, match=r"a\.parquet: belongs to no table"):
            list_inputs([str(text)], output=Path("/nowhere"), input_format=name)  # type: ignore[arg-type]


def test_of_a_streaming_sink_only_committed_files_are_read(tmp_path: Path) -> None:
    sink = tmp_path / "lake" / "sink"
    for name in ("day=1/a.parquet", "day=1/failed.parquet", "b.parquet"):
        (sink / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(sink / name, {"id": range(3)})
    write_log(sink, b0=batch(entry("s3a://elsewhere/sink/day%3D1/a.parquet"), entry("s3a://elsewhere/sink/b.parquet")))
    for text in (sink, sink.parent, f"{sink}/**/*.parquet", os.path.relpath(sink)):
        assert {Path(file.uri) for file in listed(text)} == {sink / "day=1/a.parquet", sink / "b.parquet"}, text
    assert listed(sink / "day=1")[0].partitions == {"day": "1"}
    with pytest.raises(ScoringError, match="has no rows"):
        listed(sink / "day=1" / "failed.parquet")
