"""Times in INT96: those of Spark are exact in every year, and rows that need nanoseconds are rejected."""

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.scoring.sources.int96 import LOST, int96_leaves
from tests.service.scoring.sources.conftest import Read


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path, use_deprecated_int96_timestamps=True, row_group_size=3)
    return path


def test_times_of_spark_are_exact(read: Read, tmp_path: Path) -> None:
    times = [dt.datetime(1, 1, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999999), None, dt.datetime(2024, 2, 29, 1)]
    times += [dt.datetime(9999, 12, 31, 23, 59, 59, 999999)]
    path = write(tmp_path / "a.parquet", {"id": range(5), "time": pa.array(times, pa.timestamp("us"))})
    for shard_rows in (1, 2, 7):
        found = read(path, shard_rows)
        assert [(values["time"], fault) for _, values, fault in found] == [(time, None) for time in times]
        assert all(set(values) == {"id", "time"} for _, values, _ in found)


def test_a_row_that_loses_nanoseconds_is_one_fault(read: Read, tmp_path: Path) -> None:
    columns = {
        "time": pa.array([1, 1000, -1, None, 2**60, 0], pa.timestamp("ns")),
        "times": pa.array([[1000], [], None, [1000, None], [2000, 2001], [0]], pa.list_(pa.timestamp("ns"))),
        "inner": pa.array([{"x": float("nan"), "t": 1000}] * 5 + [{"x": 1.0, "t": 1}]),
    }
    columns["inner"] = columns["inner"].cast(pa.struct([("x", pa.float64()), ("t", pa.timestamp("ns"))]))
    path = write(tmp_path / "a.parquet", columns)
    assert int96_leaves(pq.ParquetFile(path)) == ["time", "times.list.element", "inner.t"]
    lost = [True, False, True, False, True, True]
    for shard_rows in (1, 2, 7):
        assert [fault == LOST for _, _, fault in read(path, shard_rows)] == lost
