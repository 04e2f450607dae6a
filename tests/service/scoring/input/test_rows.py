"""Rows are cut at a row number."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from service.scoring.input import rows as rows_module
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


@pytest.mark.parametrize(
    ("max_rows", "max_bytes", "lengths"), [(3, 99, [3, 3, 1]), (99, 4, [2, 2, 2, 1]), (99, 99, [7])]
)
def test_items_are_chunked_by_number_and_by_size(
    max_rows: int, max_bytes: int, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "CHUNK_ROWS", max_rows)
    monkeypatch.setattr(rows_module, "CHUNK_BYTES", max_bytes)
    items = [SimpleNamespace(size=2, number=number) for number in range(7)]
    chunks = list(rows_module.chunked(iter(items)))
    assert [len(chunk) for chunk in chunks] == lengths
    assert [item for chunk in chunks for item in chunk] == items
    assert list(rows_module.chunked(iter([]))) == []
