"""The distributions of a bundle are those of all examples, as numpy counts them, and those of the graph's answers."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from export.bundle import distributions as measured
from export.bundle.distributions import MIN_EXAMPLES, measure_distributions
from export.candidate import Candidate
from service.contract.readers import TableReader
from service.drift.distributions import Distributions, parse_distributions, prediction_names
from service.drift.statistics import statistic_names
from tests.export.conftest import Candidates
from tests.export.tiny_sources import TINY


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models have few examples."""
    monkeypatch.setattr(measured, "MIN_EXAMPLES", 8)


def measure(candidate: Candidate) -> Distributions:
    found = measure_distributions(candidate)
    assert found is not None
    assert parse_distributions(found.to_json().encode(), candidate.manifest) == found
    return found


@pytest.mark.usefixtures("few")
def test_every_example_of_a_run_is_counted_once(candidate: Candidate) -> None:
    names = statistic_names(candidate.manifest)
    if not names:
        assert measure_distributions(candidate) is None
        return
    found, count = measure(candidate), len(candidate.source.examples)
    assert found.source == f"the test split of {candidate.source.provenance.dataset}"
    assert found.rows == count
    assert set(found.inputs) <= set(names)
    assert {sum(distribution.counts) for distribution in found.inputs.values()} == {count}
    assert {sum(distribution.counts) for distribution in found.predictions.values()} == {count}


@pytest.mark.usefixtures("few")
def test_predictions_are_those_of_the_trained_model(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    source = candidate.source
    probabilities = source.predict(source.examples.inputs)["probabilities"]
    found = measure(candidate)
    labels = np.bincount(probabilities.argmax(1), minlength=len(source.labels))
    assert found.predictions["label"].counts == tuple(labels.tolist())
    confidence = np.histogram(probabilities.max(1), bins=20, range=(0, 1))[0]
    assert found.predictions["confidence"].counts == tuple(confidence.tolist())
    mean = source.examples.inputs["images"].reshape(len(source.examples), -1).mean(1)
    brightness = found.inputs["brightness"]
    expected = np.histogram(mean, bins=[-np.inf, *brightness.edges, np.inf])[0]
    assert brightness.counts == tuple(expected.tolist())


@pytest.mark.usefixtures("few")
def test_unknown_tokens_are_those_of_the_tokenizer(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    assert candidate.source.tokenizer is not None
    token = json.loads(candidate.source.tokenizer)["model"]["unk_token"]
    assert measure(candidate).unknown_id == json.loads(candidate.source.tokenizer)["model"]["vocab"][token]
    assert "share of unknown tokens" in measure(candidate).inputs


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}, 1),
        ({"vocab": {"a": 0}, "unk_token": None}, None),
        ({"vocab": {"a": 0}}, None),
        ({"vocab": [["a", -1.0], ["<unk>", -2.0]], "unk_id": 1}, 1),
        ({"vocab": [["a", -1.0]], "unk_id": None}, None),
    ],
)
def test_tokenizers_name_the_unknown_token_or_have_none(model: dict[str, Any], expected: int | None) -> None:
    assert measured._unknown_id(json.dumps({"model": model})) == expected
    assert measured._unknown_id(None) is None


def test_few_or_made_examples_are_not_measured(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    assert len(candidate.source.examples) < MIN_EXAMPLES
    assert measure_distributions(candidate) is None


@pytest.mark.usefixtures("few")
def test_examples_that_export_has_made_are_not_measured(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    assert measure_distributions(replace(candidate, source=replace(candidate.source, has_data=False))) is None


@pytest.mark.usefixtures("few")
def test_statistics_that_have_no_room_are_left_out(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(candidates("tiny-rnn"))
    size = len(whole.to_json())
    monkeypatch.setitem(measured.MAX_FILE_BYTES, "distributions.json", size // 2)
    part = measure(candidates("tiny-rnn"))
    assert len(part.to_json()) <= size // 2
    assert part.left_out == len(whole.inputs) - len(part.inputs) > 0
    assert list(part.inputs) == list(whole.inputs)[: len(part.inputs)]
    assert part.predictions == whole.predictions


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", TINY)
def test_adopted_models_are_measured_on_their_examples(name: str, sources: Candidates) -> None:
    candidate = sources(name)
    found, count = measure(candidate), len(candidate.source.examples)
    assert (found.source, found.rows) == ("the examples of export", count)
    assert set(found.inputs) <= set(statistic_names(candidate.manifest))
    assert {sum(distribution.counts) for distribution in found.inputs.values()} == {count}
    assert set(found.predictions) == set(prediction_names(candidate.manifest))


@pytest.mark.usefixtures("few")
def test_values_and_categories_are_those_of_the_examples(sources: Candidates) -> None:
    table = sources("tiny-table")
    reader = table.manifest.reader
    assert isinstance(reader, TableReader)
    found = measure(table)
    for i, column in enumerate(reader.categories):
        indexes = table.source.examples.inputs["categories"][:, i]
        assert found.inputs[column.name].counts == tuple(np.bincount(indexes, minlength=len(column.values)).tolist())
    regression = sources("tiny-regression")
    values = regression.source.predict(regression.source.examples.inputs)["values"]
    for i, (name, distribution) in enumerate(measure(regression).predictions.items()):
        assert name == f"value {regression.manifest.head.names[i]}"  # type: ignore[union-attr]
        expected = np.histogram(values[:, i], bins=[-np.inf, *distribution.edges, np.inf])[0]
        assert distribution.counts == tuple(expected.tolist())


@pytest.mark.usefixtures("few")
def test_an_item_of_several_labels_counts_for_each(sources: Candidates) -> None:
    candidate = sources("tiny-multilabel")
    probabilities = candidate.source.predict(candidate.source.examples.inputs)["probabilities"]
    chosen = (probabilities >= candidate.manifest.head.threshold).sum(axis=0)  # type: ignore[union-attr]
    assert measure(candidate).predictions["label"].counts == tuple(chosen.tolist())
