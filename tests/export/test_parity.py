"""Which answers count as the same, on answers made by hand."""

from typing import Any

import numpy as np
import pytest

from export.answers import Answer
from export.candidate import Candidate, ExportError
from export.cases import Case
from export.parity import compare_answers
from tests.export.conftest import Candidates

LOGITS = np.array([[3.0, -2.0, 0.5, 1.0], [0.0, 1.0, 2.0, 3.0]], np.float32)
CASES = [Case(name="batch 2, random items", inputs={"images": np.zeros((2, 8, 8), np.uint8)})]


@pytest.fixture
def candidate(candidates: Candidates) -> Candidate:
    return candidates("tiny-picture")


def says(logits: Any, probabilities: Any = LOGITS) -> Answer:
    return lambda case: {"logits": np.array(logits), "probabilities": np.array(probabilities)}


def test_what_is_measured_is_the_distance_and_the_share_of_the_tolerance(candidate: Candidate) -> None:
    served = LOGITS.copy()
    served[0, 0] += 3e-5  # allowed: 1e-5 + 1e-4 * 3
    exact = LOGITS.astype(np.float64)
    exact[1, 1] += 1e-6
    point = compare_answers(candidate, CASES, says(LOGITS), says(exact), says(served)).worst("logits")
    assert point.worst == pytest.approx(3e-5, rel=1e-2)
    assert point.used == pytest.approx(3e-5 / 3.1e-4, rel=1e-2)
    assert point.torch_off == pytest.approx(1e-6)
    assert point.onnx_off == pytest.approx(3e-5, rel=1e-2)


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (LOGITS + np.float32(1e-3), "parity: output 'logits' differs by 0.001 .* on batch 2, random items"),
        (np.where(LOGITS == 3, np.nan, LOGITS), "output 'logits' differs by inf .*nan at"),
        (LOGITS[:1], "output 'logits' differs by inf .*shape"),
    ],
    ids=["moved", "not a number", "too few rows"],
)
def test_what_is_out_of_tolerance_is_named(candidate: Candidate, served: Any, expected: str) -> None:
    with pytest.raises(ExportError, match=expected):
        compare_answers(candidate, CASES, says(LOGITS), says(LOGITS), says(served.astype(np.float32)))


def test_the_worst_of_all_cases_is_named(candidate: Candidate) -> None:
    small, large = (says(LOGITS + np.float32(by)) for by in (1e-3, 1e-2))
    cases = [Case(name=name, inputs={}) for name in ("first", "second", "third")]

    def served(case: Case) -> dict[str, Any]:
        return (large if case.name == "second" else small)(case)

    with pytest.raises(ExportError, match=r"on second: .*3 comparisons"):
        compare_answers(candidate, cases, says(LOGITS), says(LOGITS), served)


def test_another_best_label_within_the_tolerance_is_refused_unless_it_was_a_tie(candidate: Candidate) -> None:
    wide = {
        name: tolerance.model_copy(update={"atol": 0.005}) for name, tolerance in candidate.manifest.tolerance.items()
    }
    loose = Candidate(run=candidate.run, model=b"", manifest=candidate.manifest.model_copy(update={"tolerance": wide}))
    tie, turned = np.array([[1.0, 1.002]]), np.array([[1.003, 1.0]])
    compare_answers(loose, CASES, says(tie, tie), says(tie, tie), says(turned, tie))
    tight = {name: tolerance.model_copy(update={"atol": 0.003, "rtol": 0.0}) for name, tolerance in wide.items()}
    close = Candidate(run=candidate.run, model=b"", manifest=candidate.manifest.model_copy(update={"tolerance": tight}))
    clear, other = np.array([[1.0, 1.0, 1.0061, 0.0]]), np.array([[1.003, 1.0, 1.00311, 1.00315]])
    with pytest.raises(ExportError, match="differs by"):
        compare_answers(close, CASES, says(clear, clear), says(clear, clear), says(other, clear))


def test_a_graph_that_fails_is_refused_with_the_case(candidate: Candidate) -> None:
    def fails(case: Case) -> dict[str, Any]:
        raise RuntimeError("index out of bounds")

    with pytest.raises(ExportError, match="parity: batch 2, random items: index out of bounds"):
        compare_answers(candidate, CASES, says(LOGITS), says(LOGITS), fails)
