"""Rows of tensors: nested lists without the batch axis, each shape in batches of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from service.bundle import open_bundle
from service.scoring.input.rows import Rows
from service.scoring.scorers.tensors import TensorsScorer
from tests.service.pairs import load
from tests.service.tensor_bundles import VALUES, write_echo, write_second_axis, write_without_batch


def score(folder: Path, **columns: Any) -> Any:
    scorer = TensorsScorer(load(open_bundle(folder)), {name: name for name in columns}, {})
    return scorer.score(Rows(numbers=range(len(next(iter(columns.values())))), columns=columns))


def test_texts_of_a_file_are_read_as_json(tmp_path: Path) -> None:
    folder = write_echo(tmp_path, "float32")
    scored = score(folder, x=["[1, 2.5, -3]", [1, 2.5, -3], "[1, 2]", "no"])
    assert scored.columns["y"].to_pylist() == [[1, 2.5, -3]] * 2
    assert list(scored.indexes) == [0, 1]
    assert scored.faults[2].startswith("x")
    assert scored.faults[3].startswith("x")


def test_values_keep_their_types(tmp_path: Path) -> None:
    for dtype in ("uint64", "float64", "bool", "string"):
        scored = score(write_echo(tmp_path, dtype), x=[VALUES[dtype]])
        assert scored.columns["y"].to_pylist() == [VALUES[dtype]]
        kind = scored.columns["y"].type.value_type
        assert (
            kind == {"uint64": pa.uint64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}[dtype]
        )


def test_rows_of_different_sizes_share_no_batch(tmp_path: Path) -> None:
    folder = write_second_axis(tmp_path)
    series = [np.full((1 + number % 5, 2), number).tolist() for number in range(40)]
    scored = score(folder, x=series, add=list(range(40)))
    expected = [(np.array(one).sum(0) + number).tolist() for number, one in enumerate(series)]
    assert scored.columns["y"].to_pylist() == expected


def test_a_model_without_a_batch_axis_scores_row_by_row(tmp_path: Path) -> None:
    folder = write_without_batch(tmp_path)
    tables = [np.arange(2 * size).reshape(size, 2).tolist() for size in (1, 3, 3, 6)]
    scored = score(folder, x=[*tables, [[1.0, 2.0]] * 7])
    assert scored.columns["y"].to_pylist() == [np.max(table, axis=0).tolist() for table in tables]
    assert scored.columns["at"].to_pylist() == [np.argmax(table, axis=0).tolist() for table in tables]
    assert "6" in scored.faults[4]
