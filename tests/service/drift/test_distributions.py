"""Distributions survive JSON, count by their bins, and those of another model are refused."""

import json
from typing import Any

import numpy as np
import pytest

from service.drift.distributions import (
    CONFIDENCE_BINS,
    Distribution,
    count_confidence,
    parse_distributions,
    prediction_names,
)
from service.engine.sessions.model import Model
from tests.service.distributions import distributions


def test_values_on_an_edge_are_in_the_bin_above() -> None:
    distribution = Distribution(edges=(0.0, 1.5), counts=(0, 0, 0))
    assert distribution.count(np.array([-1, 0, 1, 1.5, 9])).tolist() == [1, 2, 2]
    assert Distribution(counts=(0, 0, 0)).count(np.array([2, 2])).tolist() == [0, 0, 2]


def test_confidence_has_twenty_equal_bins() -> None:
    assert count_confidence(np.array([0, 0.049, 0.05, 0.999, 1], np.float32)).tolist() == [2, 1, *[0] * 17, 2]


def test_keys_of_a_job_name_input_and_prediction() -> None:
    known = distributions("image-classifier")
    values = {"brightness": np.array([0.0, 127.0, 255.0]), "unknown": np.array([1.0])}
    assert {name: int(bins.sum()) for name, bins in known.count_inputs(values).items()} == {"input brightness": 3}
    predicted = known.count_predictions({"label": np.array([1, 1])})
    assert {name: bins.tolist() for name, bins in predicted.items()} == {"predicted label": [0, 2, 0]}


@pytest.mark.parametrize("family", ["image-classifier", "text-classifier", "series-tagger"])
def test_json_gives_the_same_distributions(family: str, models: dict[str, Model]) -> None:
    written = distributions(family)
    assert parse_distributions(written.to_json().encode(), models[family].manifest) == written
    assert set(written.predictions) == set(prediction_names(models[family].manifest))


def test_models_that_generate_have_no_predictions_to_count(models: dict[str, Model]) -> None:
    assert prediction_names(models["language-model"].manifest) == prediction_names(models["image-generator"].manifest)
    assert prediction_names(models["language-model"].manifest) == ()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format_version",), 2, "field 'format_version'"),
        (("rows",), 0, "field 'rows'"),
        (("inputs", "warmth"), {"counts": [1]}, "inputs has 'warmth', which is no statistic of this model"),
        (("inputs", "brightness"), {"counts": [1, 2]}, "inputs 'brightness' has no edges, but its values are numbers"),
        (("inputs", "brightness"), {"edges": [1.0], "counts": [1]}, "1 counts and 1 edges"),
        (("inputs", "brightness"), {"edges": [2.0, 1.0], "counts": [1, 1, 1]}, "edges do not ascend"),
        (("inputs", "brightness"), {"edges": [1.0], "counts": [1, -1]}, "greater than or equal to 0"),
        (("inputs", "brightness"), {"edges": [1.0], "counts": [1, 1 << 49]}, "less than or equal to 70368744177664"),
        (("predictions", "label"), {"counts": [1, 2]}, "predictions 'label' has 2 counts, expected 3"),
        (("predictions", "confidence"), {"counts": [1]}, f"has 1 counts, expected {CONFIDENCE_BINS}"),
        (("predictions", "value"), {"counts": [1]}, "predictions has 'value', which is no statistic of this model"),
        (("other",), 1, "field 'other'"),
    ],
)
def test_distributions_of_another_model_are_refused(
    path: tuple[str, ...], value: Any, message: str, models: dict[str, Model]
) -> None:
    content = json.loads(distributions("image-classifier").to_json())
    place = content
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        parse_distributions(json.dumps(content).encode(), models["image-classifier"].manifest)
