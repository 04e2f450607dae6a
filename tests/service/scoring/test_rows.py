"""Rows up to a limit."""

import numpy as np
import pyarrow as pa

from service.scoring.rows import Rows


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
