"""Scores are means over all examples, counted by hand here."""

from dataclasses import replace

import numpy as np
import pytest

from export.gates.backends import reference_backend
from export.gates.examples.example_cases import example_cases
from export.gates.examples.scores import Score
from export.source import Source
from tests.export.conftest import Candidates
from tests.export.tiny_sources import make_candidate
from training.recipe import IGNORE_INDEX, Split


def scored(name: str) -> tuple[Score, Source]:
    candidate = make_candidate(name)
    score, reference = Score(candidate.source), reference_backend(candidate.source)
    for batch in example_cases(candidate):
        score.add(reference(batch.case), batch)
    return score, candidate.source


def test_labels_are_scored_by_the_share_that_is_right() -> None:
    score, source = scored("tiny-resized")
    probabilities = source.predict(dict(source.examples.inputs))["probabilities"]
    assert score.name == "accuracy"
    assert score.mean() == pytest.approx((probabilities.argmax(1) == source.examples.targets).mean())


def test_several_labels_count_one_by_one_and_values_by_their_distance() -> None:
    score, source = scored("tiny-multilabel")
    chosen = source.predict(dict(source.examples.inputs))["probabilities"] >= 0.5
    assert (score.name, score.mean()) == ("accuracy", pytest.approx((chosen == source.examples.targets).mean()))
    score, source = scored("tiny-regression")
    values = source.predict(dict(source.examples.inputs))["values"]
    assert score.name == "mean_absolute_error"
    assert score.mean() == pytest.approx(np.abs(values - source.examples.targets).mean(), rel=1e-5)


def test_steps_beyond_the_length_of_a_row_do_not_count() -> None:
    score, source = scored("tiny-bi-tagger")
    inputs, targets = source.examples.inputs, source.examples.targets
    best = source.predict(dict(inputs))["probabilities"].argmax(-1)
    is_step = np.arange(8) < inputs["lengths"][:, None]
    assert score.mean() == pytest.approx((best == targets)[is_step].mean())


def test_the_one_target_of_a_row_is_that_of_its_last_step(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    source, score = candidate.source, Score(candidate.source)
    assert source.examples.targets.ndim == 1
    reference, correct = reference_backend(source), 0
    for batch in example_cases(candidate):
        outputs = reference(batch.case)
        score.add(outputs, batch)
        best = outputs["probabilities"].argmax(-1)
        for row, target in enumerate(source.examples.targets[batch.items]):
            correct += int(best[row, batch.case.inputs["lengths"][row] - 1] == target)
    assert score.mean() == pytest.approx(correct / len(source.examples))


def test_a_language_model_has_nats_of_its_targets_or_of_its_next_tokens(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    source, reference = candidate.source, reference_backend(candidate.source)
    [batch] = example_cases(candidate)
    outputs = reference(batch.case)
    ids, logits = source.examples.inputs["ids"], outputs["logits"].astype(np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, source.examples.targets[..., None], 2)[..., 0]
    score = Score(source)
    score.add(outputs, batch)
    assert (score.name, score.mean()) == ("nats_per_token", pytest.approx(losses.mean()))
    without = replace(source, examples=Split(inputs={"ids": ids}, targets=np.empty(0, np.int64)))
    score = Score(without)
    score.add(outputs, batch)
    losses = np.log(np.exp(logits[:, :-1]).sum(-1)) - np.take_along_axis(logits[:, :-1], ids[:, 1:, None], 2)[..., 0]
    assert (score.name, score.mean()) == ("nats_per_token", pytest.approx(losses.mean()))


def test_without_targets_there_is_no_score() -> None:
    source = make_candidate("tiny-resized").source
    assert Score(replace(source, examples=replace(source.examples, targets=np.empty(0, np.int64)))).name is None
    assert Score(make_candidate("tiny-embedding").source).name is None
    assert IGNORE_INDEX < 0
