"""Every pair of reader and head scores files with the answers of POST /predict, and rejects bad rows alone."""

import base64
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from service.scoring import execution, run
from service.tasks.readers import READERS
from service.tasks.replay import answer_request_sync
from tests.service.pairs import ALL_PAIRS, load_pair, request_body, write_with_requests
from tests.service.scoring.conftest import predictions, run_here

FIELDS = {"images": "image", "texts": "text", "sequences": "sequence"}
# Rows that no model of this reader reads.
BAD: dict[str, dict[str, Any]] = {
    "image": {"image": "AAAA"},
    "text": {"text": ""},
    "series": {"sequence": [[1.0]]},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, staging = tmp_path_factory.mktemp("pairs"), tmp_path_factory.mktemp("staging")
    for name in ALL_PAIRS:
        write_with_requests(root, staging, name)
    return root


def rows_of(name: str) -> list[dict[str, Any]]:
    """The items of the request of a pair as rows of a file."""
    pair = ALL_PAIRS[name]
    field = READERS[pair.reader["kind"]].field
    items = pair.fields[field]
    if field == "rows":
        return list(items)
    if field == "tensors":
        count = len(next(iter(items.values())))
        return [{key: value[i] for key, value in items.items()} for i in range(count)]
    return [{FIELDS[field]: item} for item in items]


def expected_columns(prediction: dict[str, Any]) -> dict[str, Any]:
    """The prediction of the service as one row of the output."""
    expected = {}
    for name, value in prediction.items():
        if name in {"values", "outputs"}:
            expected |= value
        elif name == "image":
            expected[name] = base64.b64decode(value)
        elif name != "top":
            expected[name] = value
    return expected


def assert_equal(found: Any, expected: Any) -> None:
    """Compare, numbers as the float32 that they are."""
    match expected:
        case dict():
            for name, value in expected.items():
                assert_equal(found[name], value)
        case list():
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                assert_equal(one, other)
        case float():
            assert np.float32(found) == np.float32(expected)
        case _:
            assert found == expected


def score(name: str, root: Path, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setitem(execution.ENGINES, "here", run_here)
    return run.score(name, [source], output, engine="here", bundles=root, device="cpu", check=False, **options)


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_scores_are_the_answers_of_the_service(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(name)
    answers = answer_request_sync(load_pair(tmp_path / "bundle", name), request_body(name))["predictions"]
    source = tmp_path / "rows.jsonl"
    bad = BAD.get(ALL_PAIRS[name].reader["kind"], dict.fromkeys(rows[0]))
    lines = [*(row for row in rows for _ in range(20)), bad, *rows]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    request = {key: value for key, value in ALL_PAIRS[name].fields.items() if key in {"top_k", "threshold", "truncate"}}
    result = score(name, root, source, tmp_path / "out", monkeypatch, request=request)
    assert result.summary is not None, result
    assert (result.summary["scored"], result.summary["rejected"]) == (21 * len(rows), 1)
    found = predictions(tmp_path / "out")
    expected = [*(answer for answer in answers for _ in range(20)), *answers]
    assert [row["row"] for row in found] == [number for number in range(len(lines)) if number != 20 * len(rows)]
    for row, answer in zip(found, expected, strict=True):
        assert_equal(row, expected_columns(answer))


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_predictions_of_every_pair_are_appended_to_a_table(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows_of(name)))
    score(name, root, source, tmp_path / "out", monkeypatch, append_to=tmp_path / "table")
    appended = DeltaTable(tmp_path / "table").to_pyarrow_dataset().to_table().sort_by("row").to_pylist()
    for row, prediction in zip(appended, predictions(tmp_path / "out"), strict=True):
        assert_equal(row, prediction)


def test_a_table_reads_csv_and_parquet_alike(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [name, *_] = [name for name, pair in ALL_PAIRS.items() if pair.reader["kind"] == "table"]
    rows = rows_of(name)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "id"])
        writer.writeheader()
        writer.writerows({**row, "id": i} for i, row in enumerate(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    outputs = []
    for kind in ("csv", "parquet"):
        score(name, root, tmp_path / f"rows.{kind}", tmp_path / kind, monkeypatch)
        found = predictions(tmp_path / kind)
        outputs.append([{key: value for key, value in row.items() if key not in {"file", "row"}} for row in found])
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == len(rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"city": "atlantis"}, "city: expected one of"),
        ({"age": "old"}, "age: expected a number"),
        ({"age": ""}, "age: expected a number"),
        ({"age": "nan"}, "age: expected a number"),
        ({"age": "1_0"}, "age: expected a number"),
    ],
)
def test_a_bad_cell_rejects_its_row_with_the_column(
    change: dict[str, str], reason: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [name, *_] = [name for name, pair in ALL_PAIRS.items() if pair.reader["kind"] == "table"]
    good = rows_of(name)[0]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(good))
        writer.writeheader()
        writer.writerows([good, {**good, **change}, good])
    result = score(name, root, tmp_path / "rows.csv", tmp_path / "out", monkeypatch)
    assert (result.summary["scored"], result.summary["rejected"]) == (2, 1)
    [reject] = [
        json.loads(line)
        for path in (tmp_path / "out" / "rejects").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert reason in reject["reason"]
