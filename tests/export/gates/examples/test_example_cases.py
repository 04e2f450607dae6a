"""Every example is in exactly one batch, at its own size."""

import numpy as np
import pytest

from export.candidate import Candidate
from export.gates.examples.example_cases import example_cases
from tests.export.conftest import Candidates
from tests.export.tiny_sources import make_candidate


def items_of(candidate: Candidate) -> list[int]:
    return sorted(int(item) for batch in example_cases(candidate) for item in batch.items)


@pytest.mark.parametrize("name", ["tiny-detector", "tiny-bi-tagger", "tiny-table", "tiny-unbatched"])
def test_every_example_comes_once(name: str) -> None:
    candidate = make_candidate(name)
    assert items_of(candidate) == list(range(32))
    for batch in example_cases(candidate):
        assert all(len(array) == len(batch.items) <= 8 for array in batch.case.inputs.values())


def test_pictures_of_a_batch_have_one_size_and_no_padding() -> None:
    candidate = make_candidate("tiny-detector")
    for batch in example_cases(candidate):
        height, width = batch.case.inputs["images"].shape[1:3]
        for item in batch.items:
            assert candidate.source.examples.inputs["height"][item] == height
            assert candidate.source.examples.inputs["width"][item] == width


def test_windows_of_a_language_model_are_read_at_once(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    [batch] = example_cases(candidate)
    assert batch.case.chunks is not None
    assert batch.case.chunks.tolist() == [[24] * 8]
    np.testing.assert_array_equal(batch.case.inputs["ids"], candidate.source.examples.inputs["ids"])


def test_ragged_rows_are_sorted_by_length(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    lengths = [int(length) for batch in example_cases(candidate) for length in batch.case.inputs["lengths"]]
    assert lengths == sorted(candidate.source.examples.inputs["lengths"].tolist())
    assert not any(batch.case.inputs["h"].any() for batch in example_cases(candidate))
