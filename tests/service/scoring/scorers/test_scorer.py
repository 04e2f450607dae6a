"""Batches of rows of one shape, in order."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.contract.readers import TableReader
from service.drift.distributions import (
    Distribution,
    Distributions,
    input_key,
    prediction_key,
    prediction_names,
)
from service.drift.statistics import statistic_names
from service.engine.sessions.model import Model
from service.scoring.input.rows import Rows
from service.scoring.scorers import SCORERS, scorer, scorer_type
from service.scoring.scorers.generate import GenerateScorer
from service.scoring.scorers.scorer import Batches, Items, batches_by_shape, batches_of
from service.scoring.scorers.sequences import SeriesScorer, TextScorer
from tests.service.bundles import FAMILIES
from tests.service.pairs import ALL_PAIRS, load_pair
from tests.service.scoring.inputs import images, series, texts
from tests.service.scoring.test_pairs import rows_of


def test_consecutive_rows_share_batches_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "BATCH_ROWS", 7)
    rows = images(20)
    batches = list(batches_of("images", rows))
    assert [len(inputs["images"]) for _, inputs in batches] == [7, 7, 6]
    assert np.array_equal(np.concatenate([inputs["images"] for _, inputs in batches]), rows)
    assert np.arange(20)[[i for part, _ in batches for i in np.arange(20)[part]]].tolist() == list(range(20))


def test_rows_of_different_shapes_share_no_batch() -> None:
    rows = [{"x": np.full((1, 2 + number % 3), number)} for number in range(30)]
    found: dict[int, Any] = {}
    for positions, inputs in batches_by_shape(rows, max_rows=4):
        assert len(positions) == len(inputs["x"]) <= 4
        found |= dict(zip(np.asarray(positions).tolist(), inputs["x"], strict=True))
    assert [found[i].tolist() for i in range(30)] == [row["x"][0].tolist() for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_has_a_scorer(family: str, models: dict[str, Model]) -> None:
    manifest = models[family].manifest
    expected = GenerateScorer if manifest.task == "generate" else SCORERS[manifest.reader.kind]
    assert scorer_type(manifest, "jsonl") is expected


def test_rows_with_outputs_that_are_not_finite_are_rejected(models: dict[str, Model]) -> None:
    model = models["image-classifier"]
    given = images(5)
    scorer = scorer_type(model.manifest, "jsonl")(model, {"image": "image"}, {"top_k": 2})
    whole = scorer.score(Rows(numbers=range(5), columns={"image": given}))
    scorer._output_check.bad_rows = lambda outputs, inputs: {3: "logits"}  # type: ignore[method-assign]
    scored = scorer.score(Rows(numbers=range(5), columns={"image": given}))
    assert np.asarray(scored.indexes).tolist() == [0, 1, 2, 4]
    assert list(scored.faults) == [3]
    assert "logits" in scored.faults[3]
    for name, column in scored.columns.items():
        assert column.to_pylist() == [whole.columns[name].to_pylist()[i] for i in (0, 1, 2, 4)]


def test_batches_are_the_same_each_time() -> None:
    batches = Batches(batches_of, "images", images(30))
    first, again = list(batches), list(batches)
    assert len(first) == len(again) == 2
    assert all(np.array_equal(a["images"], b["images"]) for (_, a), (_, b) in zip(first, again, strict=True))


def test_scorers_read_once_what_all_of_them_read_in_one_way(models: dict[str, Model]) -> None:
    """What one reads differs by column, by an option of the reader, and for states by the version of the model."""
    model, rows = models["text-classifier"], Rows(numbers=range(3), columns={"a": texts(3), "b": texts(3, seed=1)})
    read = dict[str, Items]()
    whole = TextScorer(model, {"text": "a"}, {"top_k": 1}).score(rows, read)
    again = TextScorer(model, {"text": "a"}, {"top_k": 2}).score(rows, read)
    assert len(read) == 1
    assert again.columns["label"] == whole.columns["label"]
    TextScorer(model, {"text": "a"}, {"truncate": True}).score(rows, read)
    other = TextScorer(model, {"text": "b"}, {}).score(rows, read)
    assert len(read) == 3
    assert other.columns == TextScorer(model, {"text": "b"}, {}).score(rows).columns


def test_states_are_read_by_each_version(models: dict[str, Model]) -> None:
    model, rows = models["series-tagger"], Rows(numbers=range(3), columns={"sequence": series(3)})
    newer = replace(model, manifest=model.manifest.model_copy(update={"version": "f" * 12}))
    read = dict[str, Items]()
    for one in (model, newer, model):
        SeriesScorer(one, {"sequence": "sequence"}, {}).score(rows, read)
    assert len(read) == 2


@pytest.mark.parametrize("name", [name for name, pair in ALL_PAIRS.items() if pair.reader["kind"] != "text"])
def test_every_statistic_of_a_model_is_counted(name: str, tmp_path: Path) -> None:
    """The items of the request of each pair: the bins of each statistic, and of each value that is predicted."""
    model = load_pair(tmp_path, name)
    manifest = model.manifest
    if manifest.task == "generate":
        pytest.skip("has no distributions")
    halves = Distribution(edges=(0.5,), counts=(1, 1))
    inputs = dict.fromkeys(statistic_names(manifest), halves)
    if isinstance(manifest.reader, TableReader):
        sizes = {column.name: len(column.values) for column in manifest.reader.categories}
        inputs |= {column: Distribution(counts=(1,) * size) for column, size in sizes.items()}
    values = [prediction for prediction in prediction_names(manifest) if prediction.startswith("value ")]
    distributions = Distributions(source="made", rows=2, inputs=inputs, predictions=dict.fromkeys(values, halves))
    given = rows_of(name)
    columns = {column: [row[column] for row in given] for column in given[0]}
    scorer = scorer_type(manifest, "jsonl")(replace(model, distributions=distributions), {c: c for c in columns}, {})
    scored = scorer.score(Rows(numbers=range(len(given)), columns=columns))
    expected = {input_key(name) for name in inputs} | {prediction_key(value) for value in values}
    assert set(scored.drift) == expected
    assert {int(counts.sum()) for counts in scored.drift.values()} <= {len(scored.indexes)}


def test_models_that_share_items_count_their_own_bins(models: dict[str, Model]) -> None:
    """The statistics of the items are measured for the distributions of each bundle."""
    model, rows, read = models["image-classifier"], Rows(numbers=range(3), columns={"image": images(3)}), {}
    counts = []
    for edges in ((0.5,), (0.25, 0.5, 0.75)):
        inputs = {"brightness": Distribution(edges=edges, counts=(1,) * (len(edges) + 1))}
        distributions = Distributions(source="made", rows=2, inputs=inputs, predictions={})
        scorer = scorer_type(model.manifest, "parquet")(
            replace(model, distributions=distributions), {"image": "image"}, {}
        )
        counts.append(scorer.score(rows, read).drift[input_key("brightness")])
    assert len(read) == 1
    assert [len(bins) for bins in counts] == [2, 4]
    assert [int(bins.sum()) for bins in counts] == [3, 3]
