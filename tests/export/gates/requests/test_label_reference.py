"""The request cases show every label that ranks first on some test item."""

from dataclasses import replace

import numpy as np
import pytest

from export.gates.requests.classification import image_cases, series_cases, stateful_cases, text_cases
from export.gates.requests.label_reference import items_by_label, label_probabilities, whole_items
from tests.export.conftest import Candidates
from training.recipe import Split


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-lstm", "tiny-text"])
def test_each_label_has_the_item_of_its_largest_margin(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    probabilities = label_probabilities(candidate, dict(candidate.source.examples.inputs))
    whole = whole_items(candidate.source.examples)
    expected = []
    for label in range(probabilities.shape[1]):
        margins = {
            i: row[label] - np.delete(row, label).max()
            for i, row in enumerate(probabilities)
            if row.argmax() == label and i in whole
        }
        expected += [max(margins, key=margins.get)] if margins else []  # type: ignore[arg-type]
    assert items_by_label(candidate) == expected
    assert expected


def test_a_tagger_is_ranked_after_its_last_step(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    lengths = candidate.source.examples.inputs["lengths"]
    items = items_by_label(candidate)
    probabilities = label_probabilities(candidate, dict(candidate.source.examples.inputs))
    first = probabilities[np.arange(len(lengths)), lengths - 1].argmax(1)
    assert [int(first[item]) for item in items] == sorted(set(first.tolist()))


def test_texts_that_training_cut_are_left_out(candidates: Candidates) -> None:
    split = candidates("tiny-text").source.examples
    lengths = split.inputs["lengths"]
    assert whole_items(split) == [i for i, length in enumerate(lengths) if length < lengths.max()]
    uncut = Split(inputs={**split.inputs, "lengths": np.full(len(split), 3)}, targets=split.targets, texts=split.texts)
    assert whole_items(uncut) == list(range(len(split)))
    assert whole_items(candidates("tiny-lstm").source.examples) == list(range(48))


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("tiny-colour", image_cases),
        ("tiny-rnn", series_cases),
        ("tiny-tagger", stateful_cases),
        ("tiny-text", text_cases),
    ],
)
def test_the_last_requests_hold_an_item_of_each_label(candidates: Candidates, name: str, cases: object) -> None:
    candidate = candidates(name)
    items, num_labels = items_by_label(candidate), len(candidate.source.labels)
    body = list(cases(candidate))[-1].body  # type: ignore[operator]
    [values] = [value for key, value in body.items() if key in ("images", "sequences", "texts")]
    assert len(values) == len(items)
    assert body["top_k"] == num_labels


def test_requests_of_labels_fit_the_limit_of_items(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    limits = candidate.manifest.limits.model_copy(update={"max_items": 2})
    small = replace(candidate, manifest=candidate.manifest.model_copy(update={"limits": limits}))
    assert (
        len(list(series_cases(small))) == len(list(series_cases(candidate))) + (len(items_by_label(candidate)) - 1) // 2
    )
