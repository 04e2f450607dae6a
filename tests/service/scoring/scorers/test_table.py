"""Rows of a table are read together, and one by one if one of them is invalid."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.scoring.input.rows import Rows
from service.scoring.scorers.table import TableScorer
from tests.service.pairs import ALL_PAIRS, ROW, load_pair

NAME = next(name for name, pair in ALL_PAIRS.items() if pair.reader["kind"] == "table")


@pytest.fixture
def scorer(tmp_path: Path) -> TableScorer:
    return TableScorer(load_pair(tmp_path, NAME), {name: name for name in ROW}, {})


def rows(*records: dict[str, Any], faults: dict[int, str] | None = None) -> Rows:
    columns = {name: [record[name] for record in records] for name in ROW}
    return Rows(numbers=range(len(records)), columns=columns, faults=faults or {})


def scores(scorer: TableScorer, given: Rows) -> list[dict[str, Any]]:
    return pa.table(dict(scorer.score(given).columns)).to_pylist()


def test_text_is_read_as_a_number_where_the_model_takes_one(scorer: TableScorer) -> None:
    text = {**ROW, "age": f" {ROW['age']} "}
    assert scores(scorer, rows(text)) == scores(scorer, rows(ROW))


@pytest.mark.parametrize("age", [None, True, "", "4 1", "nan", "0x10", [41], 1e99])
def test_an_invalid_row_is_rejected_alone(age: Any, scorer: TableScorer) -> None:
    scored = scorer.score(rows(ROW, {**ROW, "age": age}, ROW))
    assert np.asarray(scored.indexes).tolist() == [0, 2]
    assert scored.faults[1].startswith("age: expected a number")


def test_unreadable_rows_stay_faults_and_no_row_scores_nothing(scorer: TableScorer) -> None:
    scored = scorer.score(rows(ROW, ROW, faults={0: "broken"}))
    assert (list(scored.indexes), scored.faults) == ([1], {0: "broken"})
    assert scores(scorer, rows(ROW, faults={0: "broken"})) == []


def test_many_rows_are_scored_in_order(scorer: TableScorer) -> None:
    records = [{**ROW, "age": i % 60} for i in range(100)]
    single = [scores(scorer, rows(record))[0] for record in records]
    assert scores(scorer, rows(*records)) == single
