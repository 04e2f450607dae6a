"""Parquet files of any layout."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.sources import parquet
from tests.service.scoring.sources.conftest import Read, read_all, spans_of


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 60), group=st.integers(1, 70), size=st.integers(1, 30), seed=st.integers(0, 9))
def test_every_row_is_read_once_for_any_group_and_shard_size(
    rows: int, group: int, size: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    pq.write_table(pa.table({"id": pa.array(range(rows), pa.int64())}), path, row_group_size=group)
    found = read_all(path, size, seed=seed)
    assert [(number, values["id"]) for number, values, _ in found] == [(i, i) for i in range(rows)]
    assert all(span.rows <= size for span in spans_of(path, size))


@pytest.mark.parametrize(
    ("group", "sizes"),
    [(300, [8100] * 4 + [7600]), (5000, [5000] * 8), (1 << 20, [8192] * 4 + [7232])],
)
def test_shards_are_as_large_as_groups_and_shard_rows_allow(group: int, sizes: list[int], tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": range(40_000)}), tmp_path / "a.parquet", row_group_size=group)
    assert [span.rows for span in spans_of(tmp_path / "a.parquet", 8192)] == sizes
    rows = read_all(tmp_path / "a.parquet", 8192)
    assert [values["id"] for _, values, _ in rows] == list(range(40_000))


def test_large_row_group_is_split_and_wide_rows_make_small_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(parquet, "CHUNK_BYTES", 10_000)
    wide = [np.random.default_rng(i).bytes(5000) for i in range(100)]
    pq.write_table(pa.table({"id": range(100), "wide": wide}), tmp_path / "a.parquet", use_dictionary=False)
    spans = spans_of(tmp_path / "a.parquet", 1000)
    assert max(span.rows for span in spans) <= 20
    assert [values["wide"] for _, values, _ in read_all(tmp_path / "a.parquet", 1000)] == wide


def test_digest_covers_the_columns_to_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": [3, 4]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": [1, 2], "b": [3, 5]}), tmp_path / "b.parquet")
    assert spans_of(tmp_path / "a.parquet", 9)[0].digest != spans_of(tmp_path / "b.parquet", 9)[0].digest


def test_truncated_file_is_an_error(read: Read, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(1000)}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:-20])
    with pytest.raises(pa.ArrowInvalid, match="magic bytes"):
        read(tmp_path / "a.parquet")


def test_corrupt_pages_are_an_error(read: Read, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [f"text {i}" for i in range(1000)]}), tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[40:400] = bytes(360)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(OSError, match=r"\w+"):
        read(tmp_path / "a.parquet")
