"""The cases cover every size, and the same seed draws the same cases."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.candidate import Candidate
from export.gates.cases import BATCHES, draw_case, parity_cases, random_chunks
from export.graph.exporter import EXAMPLE_SIZES
from tests.export.conftest import Candidates


def test_the_grid_has_every_batch_and_length_except_the_traced_ones(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    cases = list(parity_cases(candidate.run, candidate.manifest))
    sizes = {case.inputs["series"].shape[:2] for case in cases}
    assert sizes == {(batch, steps) for batch in BATCHES for steps in (1, 2, 7, 11)}
    assert EXAMPLE_SIZES["batch"] not in {batch for batch, _ in sizes}
    assert EXAMPLE_SIZES["steps"] not in {steps for _, steps in sizes}
    assert len(cases) == 2 * len(sizes)


def test_the_same_seed_draws_the_same_cases(candidate: Candidate) -> None:
    first, second = (list(parity_cases(candidate.run, candidate.manifest)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        assert all(np.array_equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


def test_rows_are_ragged_and_padded_with_garbage(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    rng = np.random.default_rng(0)
    for source in ("test", "random"):
        case = draw_case(candidate.run, candidate.manifest, batch=16, steps=9, source=source, rng=rng)
        lengths, series = case.inputs["lengths"], case.inputs["series"]
        assert lengths[0] == 9
        assert 1 <= lengths.min() < 9
        assert all(series[row, length:].all() for row, length in enumerate(lengths))


def test_test_items_come_from_the_test_split(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    case = draw_case(
        candidate.run, candidate.manifest, batch=8, steps=None, source="test", rng=np.random.default_rng(0)
    )
    images = {image.tobytes() for image in candidate.run.test.inputs["images"]}
    assert {image.tobytes() for image in case.inputs["images"]} <= images


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 99))
def test_chunks_start_with_a_prefill_and_feed_every_token_once(lengths: list[int], seed: int) -> None:
    chunks = random_chunks(np.array(lengths), np.random.default_rng(seed))
    assert chunks.sum(0).tolist() == lengths
    assert (chunks[0] >= 1).all()
    assert (chunks >= 0).all()
    assert chunks.any(1).all()
