"""References are PyTorch's outputs in float64, and rounding errors those of float32."""

from dataclasses import replace

import numpy as np
import torch

from export.gates.golden.pool import draw_pool
from export.gates.golden.reference import reference_cases
from tests.export.conftest import Candidates
from training.families import FAMILIES


def test_floats_are_those_of_float64_and_errors_are_relative_to_the_row(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    [case], rounding = reference_cases(candidate, draw_pool(candidate, seed=0).mandatory[:1])
    inputs = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
    single = FAMILIES["series-classifier"].predict(candidate.source.run.model, inputs)["logits"].numpy()
    assert case.outputs["logits"].dtype == np.float32
    error = np.abs(single.astype(np.float64) - case.outputs["logits"]) / np.abs(case.outputs["logits"]).max(
        1, keepdims=True
    )
    assert rounding["logits"] == error.max() < 1e-5


def test_pixels_are_those_of_float32(candidates: Candidates) -> None:
    candidate = candidates("tiny-gan")
    [case], rounding = reference_cases(candidate, draw_pool(candidate, seed=0).mandatory[:1])
    latents = {"latents": torch.from_numpy(case.inputs["latents"])}
    expected = FAMILIES["image-generator"].predict(candidate.source.run.model, latents)
    np.testing.assert_array_equal(case.outputs["images"], expected["images"].numpy())
    assert set(rounding) == {"samples"}


def test_the_logits_of_a_prompted_case_are_those_of_its_new_steps(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    ids = np.random.default_rng(0).integers(0, 20, (2, 7))
    [case], _ = reference_cases(candidate, ({"ids": ids, "past_lengths": np.array([5, 1])},))
    logits = (
        FAMILIES["language-model"].predict(candidate.source.run.model, {"ids": torch.from_numpy(ids)})["logits"].numpy()
    )
    np.testing.assert_allclose(case.outputs["logits"][0], logits[0, 5:7], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(case.outputs["logits"][1], logits[1, 1:3], rtol=1e-4, atol=1e-5)


def test_rows_on_which_float32_itself_is_imprecise_are_left_out(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    batch = draw_pool(candidate, seed=0).mandatory[0]
    strict = {
        name: tolerance.model_copy(update={"atol": 0.0, "rtol": 1e-12})
        for name, tolerance in candidate.manifest.tolerance.items()
    }
    imprecise = replace(candidate, manifest=candidate.manifest.model_copy(update={"tolerance": strict}))
    assert reference_cases(imprecise, (batch,)) == ((), {})
    assert len(reference_cases(candidate, (batch,))[0]) == 1
