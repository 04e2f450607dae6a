"""NaN and infinity are noticed in every row that a client would see, and nowhere else."""

from typing import Any

import numpy as np
import pytest

from service.engine.batching.outputs import NotFiniteOutputError, OutputCheck
from tests.service.bundles import FAMILIES, golden_cases
from tests.service.engine.fakes import manifest

BAD = (np.nan, np.inf, -np.inf)


def outputs(family: str) -> tuple[dict[str, Any], Any]:
    """Finite outputs for three rows, and their inputs."""
    case = golden_cases(family)[1]
    return {name: value.copy() for name, value in case.outputs.items()}, case.inputs


@pytest.mark.parametrize("family", FAMILIES)
def test_finite_outputs_pass(family: str) -> None:
    assert OutputCheck(manifest(family)).bad_rows(*outputs(family)) == {}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family in FAMILIES for name in golden_cases(family)[1].outputs if name != "images"],
)
def test_every_float_output_of_every_family_is_checked(family: str, name: str, bad: float) -> None:
    values, inputs = outputs(family)
    values[name][1].flat[0] = bad
    masked = family == "language-model" and name == "logits" and bad == -np.inf
    assert OutputCheck(manifest(family)).bad_rows(values, inputs) == ({} if masked else {1: name})


def test_the_error_has_the_output_of_each_row() -> None:
    error = NotFiniteOutputError({3: "logits"})
    assert error.outputs == {3: "logits"}
    assert str(error) == "not finite: {3: 'logits'}"


def test_each_row_names_its_first_output() -> None:
    values, inputs = outputs("series-tagger")
    values["probabilities"][0, 0, 0] = values["next_h"][0] = values["next_c"][2] = np.nan
    assert OutputCheck(manifest("series-tagger")).bad_rows(values, inputs) == {0: "probabilities", 2: "next_c"}


@pytest.mark.parametrize("bad", BAD)
def test_steps_beyond_the_length_are_undefined(bad: float) -> None:
    values, inputs = outputs("series-tagger")
    padding = np.arange(5) >= inputs["lengths"][:, None]
    assert padding.any()
    values["logits"][padding] = bad
    check = OutputCheck(manifest("series-tagger"))
    assert check.bad_rows(values, inputs) == {}
    row = int(np.flatnonzero(padding.any(axis=1))[0])
    values["logits"][row, inputs["lengths"][row] - 1, 0] = bad
    assert check.bad_rows(values, inputs) == {row: "logits"}


def test_large_outputs_whose_squares_overflow_are_finite() -> None:
    values, inputs = outputs("image-classifier")
    values["logits"][:] = np.float32(3e38)
    assert OutputCheck(manifest("image-classifier")).bad_rows(values, inputs) == {}


def test_every_step_of_a_language_model_has_a_finite_logit() -> None:
    values, inputs = outputs("language-model")
    values["logits"][:, :, 1:] = -np.inf
    check = OutputCheck(manifest("language-model"))
    assert check.bad_rows(values, inputs) == {}
    values["logits"][2, 3, 0] = -np.inf
    assert check.bad_rows(values, inputs) == {2: "logits"}


def test_float_outputs_are_computed_beside_pixels() -> None:
    check = OutputCheck(manifest("image-generator"))
    assert check.computed(["images"]) == ("images", "samples")
    assert check.computed(["samples"]) == ["samples"]
    assert check.computed(None) is None
    assert OutputCheck(manifest("image-classifier")).computed(["logits"]) == ["logits"]
