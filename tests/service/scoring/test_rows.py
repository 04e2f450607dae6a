"""Rows up to a limit."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.rows import LEAST_ROWS, TAPER, Rows, tapered


def test_rows_before_a_number() -> None:
    rows = Rows(
        numbers=[3, 5, 9],
        columns={"a": pa.array([1, 2, 3]), "b": np.array([4, 5, 6]), "c": ["x", "y", "z"]},
        faults={0: "bad", 2: "worse"},
        lines=[4, 6, 10],
    )
    assert rows.before(10) is rows
    some = rows.before(6)
    assert some.numbers == [3, 5]
    assert some.columns["a"].to_pylist() == [1, 2]
    assert some.columns["b"].tolist() == [4, 5]
    assert some.columns["c"] == ["x", "y"]
    assert some.faults == {0: "bad"}
    assert some.lines == [4, 6]
    assert len(rows.before(0).numbers) == 0


@given(shard_rows=st.integers(1, 1 << 16), total=st.integers(1, 1 << 20))
def test_shards_get_smaller_to_the_end(shard_rows: int, total: int) -> None:
    left, sizes = total, []
    while left:
        sizes.append(min(tapered(shard_rows, left), left))
        left -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size <= shard_rows for size in sizes)
    assert len(sizes) <= total // shard_rows + 1 + 4 * TAPER
    if shard_rows <= LEAST_ROWS:
        assert set(sizes[:-1]) <= {shard_rows}
    else:
        assert sizes[-1] <= max(shard_rows // TAPER, LEAST_ROWS)
