"""Rows are cut at a row number."""

import numpy as np
import pyarrow as pa

from service.scoring.input.rows import Rows


def test_numbered_below_cuts_every_part_of_the_rows() -> None:
    rows = Rows(
        numbers=[3, 5, 9],
        columns={"a": pa.array([1, 2, 3]), "b": np.array([4, 5, 6]), "c": ["x", "y", "z"]},
        faults={0: "bad", 2: "worse"},
        lines=[4, 6, 10],
    )
    assert rows.numbered_below(10) is rows
    some = rows.numbered_below(6)
    assert some.numbers == [3, 5]
    assert some.columns["a"].to_pylist() == [1, 2]
    assert some.columns["b"].tolist() == [4, 5]
    assert some.columns["c"] == ["x", "y"]
    assert some.faults == {0: "bad"}
    assert some.lines == [4, 6]
    assert len(rows.numbered_below(0).numbers) == 0
