"""The cases cover every size, and the same seed draws the same cases."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.candidate import Candidate
from export.gates.cases import BATCHES, Case, draw_case, draw_rows, parity_cases, random_chunks
from export.graph.capture import EXAMPLE_SIZES
from tests.export.conftest import Candidates


def test_the_grid_has_every_batch_and_length_except_the_traced_ones(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    cases = list(parity_cases(candidate.source, candidate.manifest))
    sizes = {case.inputs["series"].shape[:2] for case in cases}
    assert sizes == {(batch, steps) for batch in BATCHES for steps in (1, 2, 7, 11)}
    assert {1, 2, 3, 16, 64} <= {batch for batch, _ in sizes}
    assert EXAMPLE_SIZES["batch"] not in {batch for batch, _ in sizes}
    assert EXAMPLE_SIZES["steps"] not in {steps for _, steps in sizes}
    assert len(cases) == 2 * len(sizes)


def test_a_model_that_takes_long_has_smaller_batches_of_long_rows(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    cases = parity_cases(candidate.source, candidate.manifest, lambda _, steps: 32 // (steps or 1))
    sizes = {case.inputs["series"].shape[:2] for case in cases}
    expected = {1: (1, 2, 3, 16), 2: (1, 2, 3, 16), 7: (1, 2, 3), 11: (1, 2, 3)}
    assert sizes == {(batch, steps) for steps, batches in expected.items() for batch in batches}


def test_a_language_model_has_no_large_batches(candidates: Candidates) -> None:
    candidate = candidates("tiny-language")
    limits = candidate.manifest.limits.model_copy(update={"max_steps": 256})
    manifest = candidate.manifest.model_copy(update={"limits": limits})
    sizes = {case.inputs["ids"].shape for case in parity_cases(candidate.source, manifest)}
    assert {(16, 256), (64, 7)} <= sizes
    assert (64, 256) not in sizes


def test_test_items_are_read_in_one_prefill_and_random_ones_in_chunks(candidates: Candidates) -> None:
    candidate, rng = candidates("tiny-language"), np.random.default_rng(0)
    for items, feeding in (("test", "one prefill"), ("random", "in 4 chunks")):
        case = draw_case(candidate.source, candidate.manifest, batch=3, steps=20, items=items, rng=rng)  # type: ignore[arg-type]
        assert case.name == f"batch 3, 20 steps, {feeding}, {items} items"
        assert case.chunks is not None
        assert case.chunks.sum(0).tolist() == case.inputs["lengths"].tolist()


def test_drawn_rows_have_the_given_lengths_and_test_items_in_every_second_row(candidates: Candidates) -> None:
    source, manifest = candidates("tiny-tagger").source, candidates("tiny-tagger").manifest
    lengths = np.array([4, 9, 1, 3])
    inputs = draw_rows(source, manifest, lengths, np.random.default_rng(0))
    assert inputs["lengths"].tolist() == lengths.tolist()
    assert inputs["series"].shape[:2] == (4, 9)
    first_steps = {item[0].tobytes() for item in source.examples.inputs["series"]}
    assert [inputs["series"][row, 0].tobytes() in first_steps for row in range(4)] == [False, True, False, True]
    assert [bool(inputs["h"][row].any()) for row in range(4)] == [True, False, True, False]


def test_a_case_describes_its_rows() -> None:
    assert Case(name="some", inputs={}).describe(1) == "some"
    assert Case(name="some", inputs={}, rows=("a", "b")).describe(1) == "some: b"


def test_the_same_seed_draws_the_same_cases(candidate: Candidate) -> None:
    first, second = (list(parity_cases(candidate.source, candidate.manifest)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        assert all(np.array_equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


def test_rows_are_ragged_and_padded_with_garbage(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    rng = np.random.default_rng(0)
    for items in ("test", "random"):
        case = draw_case(candidate.source, candidate.manifest, batch=16, steps=9, items=items, rng=rng)
        lengths, series = case.inputs["lengths"], case.inputs["series"]
        assert lengths[0] == 9
        assert 1 <= lengths.min() < 9
        assert all(series[row, length:].all() for row, length in enumerate(lengths))


def test_test_items_come_from_the_test_split(candidates: Candidates) -> None:
    candidate = candidates("tiny-picture")
    case = draw_case(
        candidate.source, candidate.manifest, batch=8, steps=None, items="test", rng=np.random.default_rng(1)
    )
    images = {image.tobytes() for image in candidate.source.examples.inputs["images"]}
    assert {image.tobytes() for image in case.inputs["images"]} <= images


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 99))
def test_chunks_start_with_a_prefill_and_feed_every_token_once(lengths: list[int], seed: int) -> None:
    chunks = random_chunks(np.array(lengths), np.random.default_rng(seed))
    assert chunks.sum(0).tolist() == lengths
    assert (chunks[0] >= 1).all()
    assert (chunks >= 0).all()
    assert chunks.any(1).all()
