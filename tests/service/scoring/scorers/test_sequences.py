"""Texts and series of mixed lengths, valid and invalid."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.engine.sessions.model import Model
from service.scoring.input.rows import Rows
from service.scoring.scorers.sequences import SeriesScorer, TextScorer, length_batches
from service.tasks.codecs.states import pack_state
from tests.service.scoring.inputs import series, texts


def rows(**columns: Any) -> Rows:
    return Rows(numbers=range(len(next(iter(columns.values())))), columns=columns)


@pytest.fixture
def text_scorer(models: dict[str, Model]) -> TextScorer:
    return TextScorer(models["text-classifier"], {"text": "text"}, {})


def tagger(models: dict[str, Model], **columns: str) -> SeriesScorer:
    return SeriesScorer(models["series-tagger"], {"sequence": "sequence", **columns}, {})


def test_output_keeps_the_order_of_the_input(text_scorer: TextScorer) -> None:
    given = texts(150)
    found = text_scorer.score(rows(text=given))
    backwards = text_scorer.score(rows(text=given[::-1]))
    for name in ("label", "tokens"):
        assert found.columns[name].to_pylist() == backwards.columns[name].to_pylist()[::-1]
    assert found.columns["tokens"].to_pylist() == [len(text.split()) for text in given]


def test_utf8_bytes_are_texts(text_scorer: TextScorer) -> None:
    given = texts(5)
    found = text_scorer.score(rows(text=pa.array([text.encode() for text in given], pa.binary())))
    assert (
        found.columns["probability"].to_pylist()
        == text_scorer.score(rows(text=given)).columns["probability"].to_pylist()
    )


def test_bad_texts_are_rejected_with_a_reason(text_scorer: TextScorer) -> None:
    found = text_scorer.score(rows(text=["the train", None, "", b"caf\xe9", "the " * 7, 5, "\ud800", "rice"]))
    assert list(found.indexes) == [0, 7]
    said = ["got null", "got ''", "value of type bytes", "at most 6 tokens", "got 5", "surrogate"]
    for i, part in enumerate(said, start=1):
        assert found.faults[i].startswith("text: expected")
        assert part in found.faults[i]


def test_truncate_option_cuts_long_texts(models: dict[str, Model]) -> None:
    scorer = TextScorer(models["text-classifier"], {"text": "text"}, {"truncate": True})
    found = scorer.score(rows(text=["the " * 7]))
    assert found.columns["tokens"].to_pylist() == [6]


def test_bad_series_are_rejected_with_a_reason(models: dict[str, Model]) -> None:
    scorer = SeriesScorer(models["series-classifier"], {"sequence": "sequence"}, {})
    good = series(2)
    nan = np.array([[1, np.nan]], np.float32)
    column = [good[0], nan, good[0][:, :1], [], [[1, 2]] * 13, [["a", 1]], None, good[1].tolist()]
    found = scorer.score(rows(sequence=column))
    assert list(found.indexes) == [0, 7]
    assert "sequence/0/1" in found.faults[1]
    assert all(found.faults[i].startswith("sequence") for i in range(1, 7))


def test_length_column_limits_a_padded_series(models: dict[str, Model]) -> None:
    scorer = SeriesScorer(models["series-classifier"], {"sequence": "sequence", "length": "length"}, {})
    ragged = series(6)
    padded = np.full((6, 12, 2), np.nan, np.float32)
    for row, whole in zip(padded, ragged, strict=True):
        row[: len(whole)] = whole
    found = scorer.score(rows(sequence=padded, length=np.array([len(row) for row in ragged])))
    unpadded = SeriesScorer(models["series-classifier"], {"sequence": "sequence"}, {}).score(rows(sequence=ragged))
    assert found.columns["probability"].to_pylist() == unpadded.columns["probability"].to_pylist()
    bad = scorer.score(rows(sequence=padded, length=[0, 13, None, "2", True, 1]))
    assert list(bad.indexes) == [5]


def test_series_in_two_halves_with_state_equals_the_whole_series(models: dict[str, Model]) -> None:
    whole = series(4, steps=10)
    found = tagger(models).score(rows(sequence=whole))
    first = tagger(models).score(rows(sequence=[row[:4] for row in whole]))
    second = tagger(models, state="state").score(
        rows(sequence=[row[4:] for row in whole], state=first.columns["state"])
    )
    assert second.columns["state"].to_pylist() == found.columns["state"].to_pylist()
    steps = [
        a + b for a, b in zip(first.columns["steps"].to_pylist(), second.columns["steps"].to_pylist(), strict=True)
    ]
    assert steps == found.columns["steps"].to_pylist()


def test_bad_states_are_rejected_with_a_reason(models: dict[str, Model]) -> None:
    zero = np.zeros((1, 3), np.float32)
    good = pack_state(models["series-tagger"].manifest, zero, zero)
    found = tagger(models, state="state").score(rows(sequence=series(4), state=[good, "junk", None, 7]))
    assert list(found.indexes) == [0, 2]
    assert found.faults[1].startswith("state: expected")
    assert found.faults[3].startswith("state: expected")


def test_no_rows(models: dict[str, Model]) -> None:
    found = tagger(models).score(rows(sequence=[None]))
    assert len(found.indexes) == 0
    assert [len(values) for values in found.columns.values()] == [0, 0, 0, 0]


def test_length_batches_hold_each_row_once_and_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    batches = length_batches([range(length) for length in lengths])
    assert sorted(np.concatenate(batches)) == list(range(500))
    assert all(lengths[a].max() <= lengths[b].min() for a, b in pairwise(batches))
