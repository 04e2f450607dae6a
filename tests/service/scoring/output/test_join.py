"""Predictions are joined to ids and copied columns."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.scoring.input.files import InputFile
from service.scoring.input.rows import Rows
from service.scoring.job import encode_schema
from service.scoring.output.copied import with_copied
from service.scoring.output.join import free_name, join_predictions, row_ids
from service.scoring.scorers.scorer import ScoredRows
from tests.service.scoring.test_job import job_of

FILE = InputFile(uri="/a", name="a.csv", format="csv", size=0, fingerprint="", partitions={"day": "monday"})
COLUMNS: dict[str, Any] = {
    "text": ["x", "y", "z"],
    "id": pa.array([7, 8, 9]),
    "label": pa.array(["truth", "is", "here"]).dictionary_encode(),
    "row": np.array([1.5, 2.5, 3.5]),
    "grid": np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
    "nested": pa.array([{"a": 1}, None, {"a": 3}]),
}
SCORED = ScoredRows(indexes=[0, 2], columns={"label": pa.array(["p", "q"])}, faults={1: "bad"})


TYPES = {
    "text": pa.string(),
    "id": pa.int64(),
    "label": pa.string(),
    "row": pa.float64(),
    "grid": pa.list_(pa.list_(pa.uint8(), 2), 2),
    "nested": pa.struct([("a", pa.int64())]),
    "day": pa.string(),
}


def join(tmp_path: Any, *names: str, **options: Any) -> list[dict[str, Any]]:
    schema = encode_schema(pa.schema([(name, TYPES[name]) for name in names]))
    job = job_of(tmp_path, copied_schema=schema, **options)
    rows = with_copied(job, FILE, Rows(numbers=[4, 5, 6], columns=COLUMNS, faults={}))
    found: list[dict[str, Any]] = join_predictions(job, FILE, rows, SCORED).to_pylist()
    return found


def test_file_and_row_are_always_in_the_output(tmp_path: Any) -> None:
    assert join(tmp_path) == [{"file": "a.csv", "row": 4, "label": "p"}, {"file": "a.csv", "row": 6, "label": "q"}]


def test_id_and_selected_columns_are_copied(tmp_path: Any) -> None:
    rows = join(tmp_path, "id", "nested", "day", id_column="id", keep=("day", "nested"))
    assert rows[1] == {"file": "a.csv", "row": 6, "id": 9, "nested": {"a": 3}, "day": "monday", "label": "q"}


def test_star_copies_all_columns_but_the_model_input(tmp_path: Any) -> None:
    row = join(tmp_path, "id", "label", "row", "grid", "nested", "day", keep=("*",))[0]
    assert list(row) == ["file", "row", "id", "input_label", "input_row", "grid", "nested", "day", "label"]
    assert (row["input_label"], row["input_row"], row["grid"]) == ("truth", 1.5, [[0, 1], [2, 3]])


@pytest.mark.parametrize(("id_column", "expected"), [(None, [None, None]), ("id", [8, 9]), ("text", ["y", "z"])])
def test_row_ids_returns_the_ids_of_some_rows(id_column: str | None, expected: list[Any], tmp_path: Any) -> None:
    schema = encode_schema(pa.schema([(id_column, TYPES[id_column])])) if id_column else ""
    job = job_of(tmp_path, id_column=id_column, copied_schema=schema)
    rows = with_copied(job, FILE, Rows(numbers=[4, 5, 6], columns=COLUMNS))
    assert row_ids(job, rows, [1, 2]) == expected


def test_name_of_a_copied_column_is_free_at_last() -> None:
    assert free_name("note", {"file", "label"}) == "note"
    assert free_name("label", {"file", "label", "input_label"}) == "input_input_label"


def test_renamed_column_takes_no_name_of_another_one(tmp_path: Any) -> None:
    columns = {"label": pa.array(["truth"]), "input_label": pa.array(["other"])}
    schema = encode_schema(pa.schema([(name, pa.string()) for name in columns]))
    job = job_of(tmp_path, copied_schema=schema)
    rows = with_copied(job, FILE, Rows(numbers=[0], columns=columns))
    scored = ScoredRows(indexes=[0], columns={"label": pa.array(["p"])}, faults={})
    [row] = join_predictions(job, FILE, rows, scored).to_pylist()
    assert row == {"file": "a.csv", "row": 0, "input_input_label": "truth", "input_label": "other", "label": "p"}
