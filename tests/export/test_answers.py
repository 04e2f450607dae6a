"""The session, driven in chunks, answers as one forward pass does."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from export.answers import by_session, by_torch
from export.cases import Case
from tests.export.conftest import Candidates


@pytest.mark.parametrize("chunks", [[[5, 3]], [[1, 3], [4, 0]], [[2, 1], [1, 1], [2, 1]]], ids=str)
def test_a_language_model_fed_in_chunks_answers_as_one_forward_pass(
    candidates: Candidates, chunks: list[list[int]]
) -> None:
    candidate = candidates("tiny-language")
    ids, lengths = np.random.default_rng(0).integers(0, 29, (2, 5)), np.array([5, 3])
    case = Case(name="chunks", inputs={"ids": ids, "lengths": lengths}, chunks=np.array(chunks))
    given = by_session(candidate.session)(case)["logits"]
    for row, length in enumerate(lengths):
        with torch.no_grad():
            alone = candidate.run.model(torch.from_numpy(ids[row : row + 1, :length]))[0].numpy()
        np.testing.assert_allclose(given[row, :length], alone, atol=5e-5)
        assert not given[row, length:].any()


def test_the_referee_computes_in_float64_and_leaves_the_run_alone(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    inputs = {name: array[:3] for name, array in candidate.run.test.inputs.items()}
    case = Case(name="three", inputs=inputs)
    answers = [by_torch(candidate.run, double=double)(case)["logits"] for double in (False, True)]
    assert [answer.dtype for answer in answers] == [np.float32, np.float64]
    assert all(parameter.dtype == torch.float32 for parameter in candidate.run.model.parameters())
    exact, single = answers[1], answers[0]
    assert 0 < np.abs(exact - single).max() < 1e-5


def test_keys_and_values_of_a_row_do_not_depend_on_how_it_was_fed(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    inputs = {"ids": np.random.default_rng(1).integers(0, 29, (1, 6)), "lengths": np.array([6])}
    answers = [
        by_session(candidate.session)(Case(name="", inputs=inputs, chunks=np.array(chunks)))
        for chunks in ([[6]], [[3], [3]], [[1], [4], [1]])
    ]
    for one, other in pairwise(answers):
        for name, array in one.items():
            np.testing.assert_allclose(array, other[name], atol=5e-5, err_msg=name)
