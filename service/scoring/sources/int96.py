"""INT96, the times that Spark, Hive and Impala write to Parquet: nanoseconds of any year.

They are read as microseconds, which Spark has and which reach its years (9999-12-31). Nanoseconds in 64 bits reach the
years 1677 to 2262 only, and others wrap around; so rows that need nanoseconds are found by that remainder.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

UNIT = "us"
LOST = "a time of nanoseconds in INT96, of which microseconds are read: write it as TIMESTAMP(NANOS)"


def int96_leaves(parquet: pq.ParquetFile) -> list[str]:
    """The paths of the leaves with this type."""
    columns = (parquet.schema.column(i) for i in range(len(parquet.schema)))
    return [column.path for column in columns if column.physical_type == "INT96"]


def rows_with_nanoseconds(
    micro: pq.ParquetFile, nano: pq.ParquetFile, leaves: Sequence[str], **batches: Any
) -> Iterator[list[int]]:
    """The rows of each batch that lose nanoseconds. The files are one file that is read in both units."""
    pairs = zip(
        micro.iter_batches(columns=leaves, **batches), nano.iter_batches(columns=leaves, **batches), strict=True
    )
    for short, long in pairs:
        lost = set[int]()
        for times, exact in zip(short.columns, long.columns, strict=True):
            # Both wrap around in the same way.
            lost |= _different(times.cast(exact.type, safe=False), exact)
        yield sorted(lost)


def _different(one: pa.Array, other: pa.Array) -> set[int]:
    """The indexes at which two arrays differ."""
    if one.equals(other):
        return set()
    if len(one) == 1:
        return {0}
    half = len(one) // 2
    first = _different(one.slice(0, half), other.slice(0, half))
    return first | {half + i for i in _different(one.slice(half), other.slice(half))}
