"""The predictor gives the rows of a batch what a job gives them, in every kind of batch, and in Ray Data itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from service.scoring.frameworks import predictor as predictor_module
from service.scoring.frameworks.predictor import EkibenPredictor
from service.scoring.job import ScoringError
from tests.service.bundles import NAMES, write_bundle
from tests.service.scoring.conftest import Score, predictions
from tests.service.scoring.inputs import FIELD, images, items, png, series, texts

FAMILIES = sorted(FIELD)


@pytest.fixture
def bundles(served_bundles: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EKIBEN_BUNDLES", str(served_bundles))
    return served_bundles


def predictor(family: str, **options: Any) -> EkibenPredictor:
    return EkibenPredictor(NAMES[family], device="cpu", **options)


def rows_of(family: str, count: int) -> pa.Table:
    return pa.table({FIELD[family]: items(family, count), "id": [f"r{i}" for i in range(count)]})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_any_kind_gets_what_a_job_gives(family: str, bundles: Path, score: Score, tmp_path: Path) -> None:
    request = {"max_tokens": 5} if family == "language-model" else {}
    table = rows_of(family, 7)
    score(family, table, tmp_path / "out", id_column="id", request=request)
    expected = [
        {name: row[name] for name in row if name not in {"file", "row"}} for row in predictions(tmp_path / "out")
    ]
    call = predictor(family, columns={FIELD[family]: FIELD[family]}, request=request, keep=["id"])
    answers: list[Any] = [
        call(table).to_pylist(),
        call(table.to_pandas()).to_dict("records"),
    ]
    columns = call({name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)})
    answers.append([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    for rows in answers:
        assert all(pd.isna(row.pop("error")) for row in rows)
        assert [to_values(row) for row in rows] == [to_values(row) for row in expected]


def to_values(row: Any) -> Any:
    """Values without the types of numpy and pandas."""
    match row:
        case dict():
            return {name: to_values(value) for name, value in row.items()}
        case list() | np.ndarray():
            return [to_values(value) for value in row]
        case np.generic():
            return row.item()
    return row


def test_a_row_that_a_job_rejects_has_an_error_and_no_prediction(bundles: Path) -> None:
    batch = pa.table({"text": [*texts(3), None], "label": [1, 2, 3, 4]})
    answer = predictor("text-classifier")(batch)
    assert answer.column_names == ["text", "input_label", "label", "probability", "tokens", "error"]
    assert [row is None for row in answer["label"].to_pylist()] == [False, False, False, True]
    assert answer["probability"].null_count == answer["tokens"].null_count == 1
    assert answer["error"].to_pylist() == [None, None, None, "text: expected a non-empty text, got null"]
    assert answer["input_label"].to_pylist() == [1, 2, 3, 4]


def test_pixels_of_numpy_are_used_as_they_are(bundles: Path) -> None:
    array = images(5)
    batch = {"image": array, "path": np.array([f"{i}.png" for i in range(5)])}
    answer = predictor("image-classifier")(batch)
    assert answer["image"] is array
    encoded = predictor("image-classifier")({"image": np.array([png(image) for image in array], object)})
    assert answer["label"].tolist() == encoded["label"].tolist()
    assert answer["probability"].tolist() == encoded["probability"].tolist()


def test_a_frame_keeps_its_index(bundles: Path) -> None:
    frame = pd.DataFrame({"text": texts(4)}, index=pd.Index([9, 7, 5, 3], name="article"))
    answer = predictor("text-classifier")(frame)
    assert answer.index.equals(frame.index)
    assert answer["text"].equals(frame["text"])


def test_an_empty_batch_has_the_columns_of_predictions(bundles: Path) -> None:
    answer = predictor("text-classifier")(pa.table({"text": pa.array([], pa.string())}))
    assert answer.column_names == ["text", "label", "probability", "tokens", "error"]
    assert answer.num_rows == 0


def test_series_of_several_lengths_come_as_objects_of_numpy(bundles: Path) -> None:
    rows = series(4)
    column = np.empty(4, object)
    column[:] = rows
    answer = predictor("series-classifier")({"sequence": column})
    listed = predictor("series-classifier")(pa.table({"sequence": [row.tolist() for row in rows]}))
    assert answer["label"].tolist() == listed["label"].to_pylist()


@pytest.mark.parametrize(
    ("family", "batch", "options", "message"),
    [
        ("text-classifier", {"a": ["x"], "b": ["y"]}, {}, r"pass columns={\"text\": NAME}; columns: 'a', 'b'"),
        ("text-classifier", {"text": ["x"]}, {"keep": ["id"]}, "keep: no column 'id'; available: 'text'"),
        ("image-generator", {"id": [1]}, {}, "batches need a column with the seed of each image"),
    ],
)
def test_a_batch_without_the_columns_is_refused(
    family: str, batch: dict[str, Any], options: dict[str, Any], message: str, bundles: Path
) -> None:
    with pytest.raises(ScoringError, match=message):
        predictor(family, **options)(pa.table(batch))


def test_an_image_without_a_seed_has_an_error(bundles: Path) -> None:
    answer = predictor("image-generator")(pa.table({"seed": [3, None, 4]}))
    assert answer["error"].to_pylist() == [None, "seed: expected a seed, got null", None]
    assert [image is None for image in answer["image"].to_pylist()] == [False, True, False]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("nothing", {}, "model nothing: no such bundle"),
        (NAMES["text-classifier"], {"request": {"top": 3}}, "the options of a model"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(
    model: str, options: dict[str, Any], message: str, bundles: Path
) -> None:
    with pytest.raises(ScoringError, match=message):
        EkibenPredictor(model, device="cpu", **options)


@pytest.mark.parametrize("kind", ["tf32", "fp16"])
def test_only_a_model_that_allows_tf32_decides_for_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ResolvedError(Exception):
        pass

    def resolve(setting: str, *, allow_tf32: bool) -> str:
        raise ResolvedError(setting, allow_tf32)

    monkeypatch.setattr(predictor_module, "resolve_device", resolve)
    precision = {"kind": kind, "parent": f"tiny/{'0' * 12}", "items": 1, "agreement": 1.0}
    write_bundle(tmp_path, "text-classifier", name="a", precision=precision)
    with pytest.raises(ResolvedError) as raised:
        EkibenPredictor("a", bundles=tmp_path, device="cuda")
    assert raised.value.args == ("cuda", kind == "tf32")
