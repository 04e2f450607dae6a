"""Golden tensors are small, have shapes other than the traced ones, and hold PyTorch's outputs."""

import numpy as np
import torch

from export.candidate import Candidate
from export.gates.golden import golden_cases
from export.graph.exporter import EXAMPLE_SIZES
from service.engine.verification.parity import compare
from service.families import LanguageModel
from tests.export.conftest import Candidates
from training.families import FAMILIES


def test_the_session_reproduces_the_golden_outputs(candidate: Candidate) -> None:
    for case in golden_cases(candidate):
        actual = candidate.session.run(case.inputs, list(case.outputs))
        for name, expected in case.outputs.items():
            tolerance = candidate.manifest.tolerance[name]
            assert compare(expected, actual[name], atol=tolerance.atol, rtol=tolerance.rtol).within, name


def test_every_case_has_all_inputs_and_another_batch_size_than_the_example(candidate: Candidate) -> None:
    cases = golden_cases(candidate)
    for case in cases:
        assert set(case.inputs) == {spec.name for spec in candidate.manifest.inputs}
        assert EXAMPLE_SIZES["batch"] not in {len(array) for array in case.inputs.values()}
    size = sum(array.nbytes for case in cases for side in (case.inputs, case.outputs) for array in side.values())
    assert size < 1_000_000


def test_golden_outputs_equal_pytorch(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    for case in golden_cases(candidate):
        tensors = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
        for name, expected in FAMILIES["series-tagger"].predict(candidate.run.model, tensors).items():
            np.testing.assert_array_equal(case.outputs[name], expected.numpy())


def test_a_language_model_has_cases_of_prefill_decode_and_a_chunk_with_ragged_pasts(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    assert isinstance(candidate.manifest.parameters, LanguageModel)
    cases = golden_cases(candidate)
    sizes = [(case.inputs["ids"].shape[1], case.inputs["past_lengths"].tolist()) for case in cases]
    assert any(steps > 1 and not any(past) for steps, past in sizes)
    assert any(steps == 1 and len(set(past)) > 1 for steps, past in sizes)
    assert any(steps > 1 and any(past) for steps, past in sizes)
    assert all(set(case.outputs) == {"logits"} for case in cases)
    decode = next(case for case in cases if case.inputs["ids"].shape[1] == 1 and case.inputs["past_lengths"].any())
    unused = [decode.inputs["past_key_0"][row, :, past:] for row, past in enumerate(decode.inputs["past_lengths"])]
    assert all(np.abs(slots).max() > 10 for slots in unused)
