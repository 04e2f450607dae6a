"""Rows with extreme numbers, or without a finite answer: each is a reject with its reason, and no shard fails."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.scoring import execution, run
from service.scoring.run import Result
from tests.service.bundles import FAMILIES, NAMES
from tests.service.poisoned import (
    NAN_NAMES,
    NAN_OUTPUT,
    STATE_POISON,
    healthy_item,
    poisoned_item,
    write_poisoned_bundle,
    write_whole_bundle,
)
from tests.service.scoring.conftest import predictions, rejects, run_here
from tests.service.scoring.inputs import FIELD, write_jsonl

SERIES_FAMILIES = ("series-classifier", "series-tagger")
RANGES = {"series": {"low": -4.0, "high": 4.0}, "h": {"low": -1.0, "high": 1.0}, "c": {"low": -9.0, "high": 9.0}}


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("numbers")
    for family in FAMILIES:
        write_poisoned_bundle(root, family)
    for family in SERIES_FAMILIES:
        names = ("series", "h", "c") if family == "series-tagger" else ("series",)
        write_whole_bundle(root, family, NAMES[family], domain={name: RANGES[name] for name in names})
    return root / "bundles"


@pytest.fixture
def job(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """job(name, input, **options) scores an input."""
    monkeypatch.setitem(execution.ENGINES, "here", run_here)

    def job(name: str, source: Path, **options: Any) -> Result:
        return run.score(
            name, [source], tmp_path / "out", engine="here", bundles=bundles, device="cpu", shard_rows=4, check=False,
            **options,
        )  # fmt: skip

    return job


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_without_a_finite_answer_is_a_reject(family: str, job: Any, tmp_path: Path) -> None:
    rows = [healthy_item(family)] * 10
    for bad in (1, 2, 7):
        rows[bad] = poisoned_item(family)
    source = write_jsonl(tmp_path / "rows.jsonl", {FIELD[family]: rows})
    options = {"request": {"max_tokens": 3, "seed": 3}} if family == "language-model" else {}
    result = job(NAN_NAMES[family], source, **options)
    assert result.failures == ()
    assert [row["row"] for row in predictions(tmp_path / "out")] == [0, 3, 4, 5, 6, 8, 9]
    rejected = rejects(tmp_path / "out")
    assert [row["row"] for row in rejected] == [1, 2, 7]
    assert all(f"the model's output '{NAN_OUTPUT[family]}' is not finite" in row["reason"] for row in rejected)


def test_a_row_whose_state_is_not_finite_is_a_reject(job: Any, tmp_path: Path) -> None:
    rows = [healthy_item("series-tagger"), [[0.5, STATE_POISON]], [[0.25, 1.0], [0.5, STATE_POISON]]]
    job(NAN_NAMES["series-tagger"], write_jsonl(tmp_path / "rows.jsonl", {"sequence": rows}), request={"top_k": 2})
    assert [row["row"] for row in predictions(tmp_path / "out")] == [0, 2]
    (rejected,) = rejects(tmp_path / "out")
    assert (rejected["row"], "'next_c' is not finite" in rejected["reason"]) == (1, True)


@pytest.mark.parametrize("family", SERIES_FAMILIES)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_numbers_outside_the_domain_are_rejects_with_place_and_range(
    family: str, form: str, job: Any, tmp_path: Path
) -> None:
    numbers = [0.5, 3e38, -3e38, 4.5, -4.0, 1e-40, np.nan, np.inf, 1e39]
    rows = [[[0.5, 0.25], [number, 1.0]] for number in numbers]
    if form == "jsonl":
        rows = [row for row in rows if np.isfinite(row[1][0])]
        source = write_jsonl(tmp_path / "rows.jsonl", {"sequence": rows})
    else:
        source = tmp_path / "rows.parquet"
        pq.write_table(pa.table({"sequence": pa.array(rows, pa.list_(pa.list_(pa.float64())))}), source)
    result = job(NAMES[family], source)
    assert result.failures == ()
    good = [i for i, row in enumerate(rows) if -4 <= row[1][0] <= 4]
    scored = predictions(tmp_path / "out")
    assert [row["row"] for row in scored] == good
    assert all(np.isfinite(row["probability"]) for row in scored)
    rejected = rejects(tmp_path / "out")
    assert len(rejected) == len(rows) - len(good)
    assert all("sequence/1/0: expected a number of -4.0 to 4.0, got" in row["reason"] for row in rejected)


def test_a_state_outside_the_domain_is_a_reject(job: Any, bundles: Path, tmp_path: Path) -> None:
    from service.bundle import open_bundle
    from service.tasks.codecs.states import pack_state

    folder = bundles / NAMES["series-tagger"]
    manifest = open_bundle(folder / (folder / "current").read_text().strip()).manifest
    zero = np.zeros((1, 3), np.float32)
    states = [
        pack_state(manifest, zero, zero),
        pack_state(manifest, zero + 2, zero),
        pack_state(manifest, zero, zero - 3e38),
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", {"sequence": [[[0.5, 1.0]]] * 3, "state": states})
    assert job(NAMES["series-tagger"], source).failures == ()
    assert [row["row"] for row in predictions(tmp_path / "out")] == [0]
    reasons = [row["reason"] for row in rejects(tmp_path / "out")]
    assert "expected a state with a number of -1.0 to 1.0 at h[0, 0], got 2.0" in reasons[0]
    assert "expected a state with a number of -9.0 to 9.0 at c[0, 0], got -3" in reasons[1]


def test_a_null_series_beside_a_length_is_a_reject(job: Any, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", {"sequence": [None, [[0.5, 1.0]], "text", 7], "length": [1, 1, 2, 1]})
    assert job(NAMES["series-classifier"], source).failures == ()
    assert [row["row"] for row in predictions(tmp_path / "out")] == [1]
    assert [row["row"] for row in rejects(tmp_path / "out")] == [0, 2, 3]
