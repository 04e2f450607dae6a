"""Goldens are small, hold PyTorch's values, and kill the mutants of the graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.golden import gate
from export.gates.golden.gate import check_pool, choose_goldens, with_rounding
from export.gates.golden.pool import Pool, draw_pool
from export.gates.golden.reference import reference_cases
from export.graph.capture import EXAMPLE_SIZES
from export.mutation.corpus import draw_graph_mutants
from service.contract.heads import LanguageModelHead
from service.engine.verification.golden_inputs import PROMPTED
from service.engine.verification.initializers import stored_tensors, tensor_values, with_values
from service.engine.verification.parity import replay_cases
from service.errors import BundleError
from tests.export.conftest import Candidates, Proofs
from training.families import FAMILIES


def test_the_session_reproduces_the_goldens_within_rounding_errors(candidate: Candidate, proofs: Proofs) -> None:
    goldens = proofs(candidate.manifest.name).goldens
    replay_cases(with_rounding(candidate, goldens.rounding).session, dict(enumerate(goldens.cases)))
    assert all(0 < error < 1e-4 for error in goldens.rounding.values())


def test_every_case_has_all_inputs_and_another_batch_size_than_the_example(
    candidate: Candidate, proofs: Proofs
) -> None:
    cases = proofs(candidate.manifest.name).golden
    is_language = isinstance(candidate.manifest.head, LanguageModelHead)
    names = PROMPTED if is_language else {spec.name for spec in candidate.manifest.inputs}
    for case in cases:
        assert set(case.inputs) == names
        assert EXAMPLE_SIZES["batch"] not in {len(array) for array in case.inputs.values()}
    size = sum(array.nbytes for case in cases for side in (case.inputs, case.outputs) for array in side.values())
    assert size < 1_000_000


def test_golden_outputs_equal_pytorch(proofs: Proofs, candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    for case in proofs("tiny-tagger").golden:
        tensors = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
        for name, expected in FAMILIES["series-tagger"].predict(candidate.source.run.model, tensors).items():
            np.testing.assert_allclose(case.outputs[name], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_goldens_kill_the_mutants_of_the_score_and_those_of_another_seed(candidate: Candidate, proofs: Proofs) -> None:
    goldens = proofs(candidate.manifest.name).goldens
    assert goldens.score.mutants >= 20
    assert goldens.score.killed_at_load >= 0.95 * goldens.score.mutants
    rounded = with_rounding(candidate, goldens.rounding)
    cases = dict(enumerate(goldens.cases))
    mutants = draw_graph_mutants(rounded, count=40, seed=77)
    survivors = []
    for mutant in mutants:
        try:
            replay_cases(mutant.apply(rounded).session, cases)
        except (ExportError, BundleError, RuntimeError):
            continue
        survivors.append(str(mutant))
    # Some mutants change nothing: the recurrent weights of a unit that is never read, a step of rounding.
    assert len(survivors) <= 8, survivors


def test_rounding_errors_are_the_largest_of_both_parts_of_the_pool(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = candidates("tiny-rnn")
    first, second = draw_pool(candidate, seed=0).mandatory[:2]
    for mandatory, optional in (((), (first,)), ((first,), ()), ((first,), (second,)), ((second,), (first,))):
        pool = Pool(mandatory=mandatory, optional=optional)
        monkeypatch.setattr(gate, "draw_pool", lambda _, seed, pool=pool: pool)
        _, expected = reference_cases(candidate, (*mandatory, *optional))
        assert check_pool(candidate)[2] == expected


def test_a_change_far_below_the_tolerance_is_refused(candidates: Candidates) -> None:
    """A hundredth of the tolerance on a large logit is more than rounding explains."""
    candidate = candidates("tiny-picture")
    tensor = next(tensor for tensor in stored_tensors(candidate.model, "float32") if "6.weight" in tensor.name)
    values = tensor_values(candidate.model, tensor) * np.float32(1 + 3e-5)
    with pytest.raises(ExportError, match=r"goldens: .* by rounding"):
        check_pool(replace(candidate, model=with_values(candidate.model, tensor, values)))


def test_the_same_candidate_gets_the_same_goldens(candidates: Candidates, proofs: Proofs) -> None:
    again, before = choose_goldens(candidates("tiny-rnn")), proofs("tiny-rnn").goldens
    assert (again.score, again.rounding) == (before.score, before.rounding)
    for one, other in zip(again.cases, before.cases, strict=True):
        for name in one.inputs:
            np.testing.assert_array_equal(one.inputs[name], other.inputs[name])


def test_large_rounding_errors_leave_the_tolerance_to_decide(candidates: Candidates) -> None:
    candidate = with_rounding(candidates("tiny-rnn"), {"logits": 0.5})
    assert candidate.manifest.tolerance["logits"].rounding == 0.01
    assert candidate.manifest.tolerance["probabilities"].rounding is None
