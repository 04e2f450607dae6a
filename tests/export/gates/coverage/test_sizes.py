"""A graph that differs at a single length or batch size is refused, although it is right at all sizes of the grid."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.backends import reference_backend, session_backend
from export.gates.cases import BATCHES, parity_cases
from export.gates.coverage import sizes
from export.gates.coverage.sizes import MAX_POOL_ROWS, batch_sizes, check_batch_sizes, check_lengths, dense_sizes
from export.gates.parity import compare_backends
from service.engine.limits import MAX_BATCH_ITEMS
from tests.export.conftest import Candidates
from tests.export.edits import any_element, constant, node, size_is, triggered


def passes_the_grid(candidate: Candidate) -> bool:
    source = candidate.source
    torch32, torch64 = reference_backend(source), reference_backend(source, float64=True)
    cases = parity_cases(source, candidate.manifest)
    return bool(compare_backends(candidate, cases, torch32, torch64, session_backend(candidate.session)).measurements)


def up_to(candidate: Candidate, max_steps: int) -> Candidate:
    """The candidate with another limit of steps."""
    limits = candidate.manifest.limits.model_copy(update={"max_steps": max_steps})
    return replace(candidate, manifest=candidate.manifest.model_copy(update={"limits": limits}))


@pytest.mark.parametrize("name", ["tiny-rnn", "tiny-lstm", "tiny-tagger", "tiny-text"])
def test_every_length_of_an_honest_graph_passes(candidates: Candidates, name: str) -> None:
    candidate = candidates(name)
    coverage = check_lengths(candidate)
    assert coverage.num_batches == (candidate.manifest.limits.max_steps or 0) + 1
    assert set(coverage.max_differences) == set(candidate.manifest.tolerance)
    assert max(coverage.max_differences.values()) < 1e-5


def test_a_graph_that_differs_at_one_width_is_refused(candidates: Candidates) -> None:
    mutant = triggered(candidates("tiny-lstm"), size_is("series", 1, 9))
    assert passes_the_grid(mutant)
    with pytest.raises(
        ExportError, match=r"parity: output 'logits' differs by 0.5 .*every length, a batch of \d with 9"
    ):
        check_lengths(mutant)


@pytest.mark.parametrize("name", ["tiny-tagger", "tiny-text"])
def test_a_graph_that_differs_for_rows_of_one_length_is_refused(candidates: Candidates, name: str) -> None:
    longest = candidates(name).manifest.limits.max_steps
    mutant = triggered(up_to(candidates(name), 60), any_element("lengths", "Equal", 57, "int64"))
    with pytest.raises(ExportError, match=r"every length, a batch of \d+ with 57 steps: length \d+: "):
        check_lengths(mutant)
    assert longest is not None
    check_lengths(triggered(candidates(name), any_element("lengths", "Equal", longest + 1, "int64")))


def test_lengths_beyond_the_first_are_sampled(candidates: Candidates) -> None:
    coverage = check_lengths(up_to(candidates("tiny-rnn"), 700))
    assert coverage.num_batches > 512 + 60
    lengths = dense_sizes(700, 512, 64)
    assert lengths[:512] == list(range(1, 513))
    assert lengths[-1] == 700
    assert lengths == sorted(set(lengths))
    assert dense_sizes(5, 512, 64) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", [6, 33, 48, 64, 127, 129, 256, MAX_BATCH_ITEMS])
def test_a_graph_that_differs_at_one_batch_size_is_refused(candidates: Candidates, size: int) -> None:
    mutant = triggered(candidates("tiny-picture"), size_is("images", 0, size))
    assert size in BATCHES or passes_the_grid(mutant)
    with pytest.raises(
        ExportError, match=rf"'logits' differs by 0.5 .* on every batch size, a batch of {size}: row \d+"
    ):
        check_batch_sizes(mutant)


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-gan", "tiny-tagger", "tiny-text"])
def test_every_batch_size_of_an_honest_graph_passes(candidates: Candidates, name: str) -> None:
    coverage = check_batch_sizes(candidates(name))
    assert coverage.num_batches == len(batch_sizes(MAX_BATCH_ITEMS))
    assert coverage.num_items == sum(batch_sizes(MAX_BATCH_ITEMS))


def test_a_graph_that_differs_in_the_last_row_of_a_large_batch_is_refused(candidates: Candidates) -> None:
    def condition(graph: onnx.GraphProto) -> str:
        last = np.zeros((MAX_BATCH_ITEMS, 1), np.float32)
        last[-1] = 1
        rows = constant(graph, [MAX_BATCH_ITEMS - 1], "int64")
        taken = node(graph, "Gather", [constant(graph, last, "float32"), rows], axis=0)
        is_large = node(graph, "Cast", [size_is("images", 0, MAX_BATCH_ITEMS)(graph)], to=onnx.TensorProto.FLOAT)
        return node(graph, "Mul", [taken, is_large])

    with pytest.raises(ExportError, match=rf"a batch of {MAX_BATCH_ITEMS}"):
        check_batch_sizes(triggered(candidates("tiny-picture"), condition))


def test_batch_sizes_have_all_small_ones_and_the_neighbours_of_powers_of_two() -> None:
    batches = batch_sizes(1024)
    assert set(range(1, 130)) | {255, 256, 257, 511, 512, 513, 1023, 1024} <= set(batches)
    assert batches == sorted(set(batches))
    assert max(batches) == 1024
    assert MAX_POOL_ROWS < 1024


def test_the_largest_batch_depends_on_the_bytes_of_a_row(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A picture of 64 bytes and four float32 outputs of either kind.
    monkeypatch.setattr(sizes, "MAX_POOL_BYTES", 200 * (64 + 2 * 16))
    assert check_batch_sizes(candidates("tiny-picture")).num_items == sum(batch_sizes(200))
