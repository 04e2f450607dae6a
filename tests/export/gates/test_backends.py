"""A session fed in chunks computes what one forward pass computes."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from export.errors import ExportError
from export.gates import backends
from export.gates.backends import reference_backend, session_backend
from export.gates.cases import Case, draw_case
from tests.export.conftest import Candidates
from tests.export.tiny_sources import make_candidate


@pytest.mark.parametrize("chunks", [[[5, 3]], [[1, 3], [4, 0]], [[2, 1], [1, 1], [2, 1]]], ids=str)
def test_a_language_model_in_chunks_equals_one_forward_pass(candidates: Candidates, chunks: list[list[int]]) -> None:
    candidate = candidates("tiny-language")
    ids, lengths = np.random.default_rng(0).integers(0, 29, (2, 5)), np.array([5, 3])
    case = Case(name="chunks", inputs={"ids": ids, "lengths": lengths}, chunks=np.array(chunks))
    logits = session_backend(candidate.session)(case)["logits"]
    for row, length in enumerate(lengths):
        with torch.no_grad():
            single = candidate.source.run.model(torch.from_numpy(ids[row : row + 1, :length]))[0].numpy()
        np.testing.assert_allclose(logits[row, :length], single, atol=5e-5)
        assert not logits[row, length:].any()


def test_the_float64_reference_does_not_change_the_run(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    inputs = {name: array[:3] for name, array in candidate.source.examples.inputs.items()}
    case = Case(name="three", inputs=inputs)
    exact = reference_backend(candidate.source, float64=True)(case)["logits"]
    single = reference_backend(candidate.source)(case)["logits"]
    assert (single.dtype, exact.dtype) == (np.float32, np.float64)
    assert all(parameter.dtype == torch.float32 for parameter in candidate.source.run.model.parameters())
    assert 0 < np.abs(exact - single).max() < 1e-5


def test_keys_and_values_do_not_depend_on_the_chunks(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    inputs = {"ids": np.random.default_rng(1).integers(0, 29, (1, 6)), "lengths": np.array([6])}
    results = [
        session_backend(candidate.session)(Case(name="", inputs=inputs, chunks=np.array(chunks)))
        for chunks in ([[6]], [[3], [3]], [[1], [4], [1]])
    ]
    for one, other in pairwise(results):
        for name, array in one.items():
            np.testing.assert_allclose(array, other[name], atol=5e-5, err_msg=name)


def test_both_backends_have_the_same_outputs_with_zeros_as_padding(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    inputs = {"ids": np.random.default_rng(2).integers(0, 29, (2, 6)), "lengths": np.array([6, 4])}
    case = Case(name="", inputs=inputs, chunks=inputs["lengths"][None])
    expected, actual = reference_backend(candidate.source)(case), session_backend(candidate.session)(case)
    assert set(expected) == set(actual) > {"logits"}
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, atol=5e-5, err_msg=name)
        assert not (array[1, 4:] if name == "logits" else array[1, :, 4:]).any()


def test_a_reference_from_elsewhere_computes_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = make_candidate("tiny-bi-tagger")
    source, batches = candidate.source, list[int]()
    case = draw_case(source, candidate.manifest, batch=5, steps=4, items="random", rng=np.random.default_rng(3))

    def predict(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        batches.append(len(next(iter(inputs.values()))))
        # A module may cut its answer to the longest row that it is given.
        width = int(inputs["lengths"].max())
        return {name: array[:, :width] for name, array in source.predict(inputs).items()}

    expected = reference_backend(source)(case)
    monkeypatch.setattr(backends, "MAX_ELEMENTS", 2 * sum(array[0].size for array in case.inputs.values()))
    actual = reference_backend(replace(source, predict=predict))(case)
    assert batches == [2, 2, 1]
    for name, array in expected.items():
        assert actual[name].shape == array.shape
        for row, length in enumerate(case.inputs["lengths"]):
            np.testing.assert_allclose(actual[name][row, :length], array[row, :length], atol=1e-6)


def test_a_reference_that_gives_fewer_rows_is_refused() -> None:
    source = make_candidate("tiny-regression").source
    given = replace(source, predict=lambda inputs: {name: rows[:3] for name, rows in source.predict(inputs).items()})
    inputs = {name: rows[:5] for name, rows in source.examples.inputs.items()}
    with pytest.raises(ExportError, match=r"output '\w+' of the model has 3 rows for a batch of 5, expected as many"):
        reference_backend(given)(Case(name="five", inputs=inputs))
