"""Parity accepts and refuses outputs that are made by hand."""

from typing import Any

import numpy as np
import pytest

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.backends import Backend
from export.gates.cases import Case
from export.gates.coverage.domain import choose_domain
from export.gates.parity import check_parity, compare_backends
from tests.export.conftest import Candidates

LOGITS = np.array([[3.0, -2.0, 0.5, 1.0], [0.0, 1.0, 2.0, 3.0]], np.float32)
CASES = [Case(name="batch 2, random items", inputs={"images": np.zeros((2, 8, 8), np.uint8)})]


@pytest.fixture
def candidate(candidates: Candidates) -> Candidate:
    return candidates("tiny-picture")


def returning(logits: Any, probabilities: Any = LOGITS) -> Backend:
    return lambda case: {"logits": np.array(logits), "probabilities": np.array(probabilities)}


def test_a_measurement_has_the_difference_the_tolerance_share_and_the_errors(candidate: Candidate) -> None:
    # The tolerance of this element is 1e-5 + 1e-4 * 3.
    actual = LOGITS.copy()
    actual[0, 0] += 3e-5
    exact = LOGITS.astype(np.float64)
    exact[1, 1] += 1e-6
    measurement = compare_backends(candidate, CASES, returning(LOGITS), returning(exact), returning(actual)).largest(
        "logits"
    )
    assert measurement.max_difference == pytest.approx(3e-5, rel=1e-2)
    assert measurement.tolerance_share == pytest.approx(3e-5 / 3.1e-4, rel=1e-2)
    assert measurement.torch_error == pytest.approx(1e-6)
    assert measurement.onnx_error == pytest.approx(3e-5, rel=1e-2)


def test_a_pixel_may_differ_by_one(candidates: Candidates) -> None:
    def backend(by: int) -> Backend:
        images = np.full((1, 8, 8), 200, np.uint8)
        images[0, 3, 4] += by
        return lambda case: {"images": images, "samples": np.zeros((1, 8, 8), np.float32)}

    measurement = compare_backends(candidates("tiny-gan"), CASES, backend(0), backend(0), backend(1)).largest("images")
    assert (measurement.max_difference, measurement.tolerance_share) == (1, 1)
    with pytest.raises(ExportError, match="output 'images' differs by 2"):
        compare_backends(candidates("tiny-gan"), CASES, backend(0), backend(0), backend(2))


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (LOGITS + np.float32(1e-3), "parity: output 'logits' differs by 0.001 .* on batch 2, random items"),
        (np.where(LOGITS == 3, np.nan, LOGITS), "output 'logits' differs by inf .*nan at"),
        (LOGITS[:1], "output 'logits' differs by inf .*shape"),
    ],
    ids=["moved", "not a number", "too few rows"],
)
def test_an_output_out_of_tolerance_is_refused_with_its_case(candidate: Candidate, actual: Any, expected: str) -> None:
    with pytest.raises(ExportError, match=expected):
        compare_backends(candidate, CASES, returning(LOGITS), returning(LOGITS), returning(actual.astype(np.float32)))


def test_the_refusal_names_the_case_that_differs_most(candidate: Candidate) -> None:
    small, large = (returning(LOGITS + np.float32(by)) for by in (1e-3, 1e-2))
    cases = [Case(name=name, inputs={}) for name in ("first", "second", "third")]

    def backend(case: Case) -> dict[str, Any]:
        return (large if case.name == "second" else small)(case)

    with pytest.raises(ExportError, match=r"on second: .*3 comparisons"):
        compare_backends(candidate, cases, returning(LOGITS), returning(LOGITS), backend)


def test_another_top_label_passes_only_if_the_two_best_scores_are_within_their_tolerances(candidate: Candidate) -> None:
    tie, turned = np.array([[1.0, 1.0001]]), np.array([[1.0001, 1.0]])
    compare_backends(candidate, CASES, returning(tie, tie), returning(tie, tie), returning(turned, tie))
    clear = np.array([[1.0, 1.0004]])
    with pytest.raises(ExportError, match="output 'logits' differs by"):
        compare_backends(candidate, CASES, returning(clear, clear), returning(clear, clear), returning(turned, clear))


def test_a_graph_that_raises_is_refused_with_the_case(candidate: Candidate) -> None:
    def failing(case: Case) -> dict[str, Any]:
        raise RuntimeError("index out of bounds")

    with pytest.raises(ExportError, match="parity: batch 2, random items: index out of bounds"):
        compare_backends(candidate, CASES, returning(LOGITS), returning(LOGITS), failing)


def test_a_graph_whose_second_run_differs_is_refused(candidate: Candidate) -> None:
    number_of_runs = 0

    def backend(case: Case) -> dict[str, Any]:
        nonlocal number_of_runs
        number_of_runs += 1
        return returning(LOGITS + np.float32(1e-7 * number_of_runs))(case)

    with pytest.raises(ExportError, match="output 'logits' differs between two runs of the same input on batch 2"):
        compare_backends(candidate, CASES, returning(LOGITS), returning(LOGITS), backend)
    assert number_of_runs == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny-picture", ["every batch size", "structured inputs"]),
        ("tiny-rnn", ["every length", "every batch size", "structured inputs"]),
        (
            "tiny-prenorm",
            [
                "every prompt length at every capacity",
                "every chunk of a prompt",
                "every past length at every capacity",
                "every batch size",
                "every size of the past",
                "structured inputs",
            ],
        ),
    ],
)
def test_every_family_has_its_coverages_and_its_domain(candidates: Candidates, name: str, expected: list[str]) -> None:
    candidate = candidates(name)
    parity = check_parity(candidate)
    assert [coverage.name for coverage in parity.coverages] == expected
    assert parity.domain == choose_domain(candidate.source, candidate.manifest)
