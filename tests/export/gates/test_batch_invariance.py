"""The gate chooses the cheapest strategy that makes outputs invariant, and measures the outputs that are not."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.batch_invariance import LARGE_SIZES, certify, probe_positions
from export.gates.coverage.domain import with_domain
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import Mismatch
from tests.export.conftest import Candidates
from tests.export.edits import Leak, constant, leaking, node, size


def batch_of_one(graph: onnx.GraphProto, logits: str) -> str:
    is_one = node(graph, "Equal", [size(graph, logits, 0), constant(graph, 1, "int64")])
    return node(graph, "Cast", [is_one], to=onnx.TensorProto.FLOAT)


def ragged_batch(graph: onnx.GraphProto, logits: str) -> str:
    remainder = node(graph, "Mod", [size(graph, logits, 0), constant(graph, 4, "int64")])
    return node(graph, "Cast", [remainder], to=onnx.TensorProto.FLOAT)


def odd_width(graph: onnx.GraphProto, logits: str) -> str:
    return node(graph, "Cast", [size(graph, "series", 1)], to=onnx.TensorProto.FLOAT)


def one_width(graph: onnx.GraphProto, logits: str) -> str:
    is_five = node(graph, "Equal", [size(graph, "series", 1), constant(graph, 5, "int64")])
    return node(graph, "Cast", [is_five], to=onnx.TensorProto.FLOAT)


def one_size(graph: onnx.GraphProto, logits: str) -> str:
    is_eleven = node(graph, "Equal", [size(graph, logits, 0), constant(graph, 11, "int64")])
    return node(graph, "Cast", [is_eleven], to=onnx.TensorProto.FLOAT)


def batch_mean(graph: onnx.GraphProto, logits: str) -> str:
    return node(graph, "ReduceMean", [logits, constant(graph, [0], "int64")], keepdims=1)


def accepting(candidate: Candidate) -> Candidate:
    """The candidate of a recipe that accepts the level `tolerance`."""
    return replace(candidate, source=replace(candidate.source, invariance="tolerance"))


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-rnn", "tiny-prenorm", "tiny-gan"])
def test_a_session_without_a_leak_is_certified(candidates: Candidates, name: str) -> None:
    certificate = certify(candidates(name))
    assert certificate.num_compared > 100
    assert (certificate.num_equal == certificate.num_compared) == (certificate.invariance.level == "bitwise")
    assert certificate.invariance.measured == max(certificate.max_differences.values()) < 1e-6


@pytest.mark.parametrize(
    ("leak", "strategy"),
    [
        (batch_of_one, "minimum-batch-2"),
        (ragged_batch, "batch-buckets"),
        (one_size, "batch-buckets"),
        (odd_width, "length-buckets"),
        (one_width, "length-buckets"),
    ],
)
def test_the_cheapest_strategy_that_helps_is_chosen(candidates: Candidates, leak: Leak, strategy: str) -> None:
    """tiny-lstm needs no strategy; the leak makes it depend on its batch size or width."""
    candidate = leaking(candidates("tiny-lstm"), leak, 1e-6)
    certificate = certify(candidate)
    assert (certificate.invariance.level, certificate.invariance.strategy) == ("bitwise", strategy)
    assert certificate.invariance.measured == 0
    assert certificate.num_equal == certificate.num_compared > 100
    assert candidate.with_invariance(certificate.invariance).session.manifest.invariance.strategy == strategy


@pytest.mark.parametrize("end", ["high", "low"])
def test_a_leak_of_outliers_alone_is_found(candidates: Candidates, end: str) -> None:
    candidate = with_domain(candidates("tiny-lstm"))
    allowed = candidate.manifest.domain["series"]

    def outlier(graph: onnx.GraphProto, _: str) -> str:
        """1 if a number of any row is in the last tenth of the domain, in which no example is."""
        farthest = node(graph, "ReduceMax" if end == "high" else "ReduceMin", ["series"], keepdims=0)
        bound = constant(graph, 0.9 * getattr(allowed, end), "float32")
        is_far = node(graph, "Greater" if end == "high" else "Less", [farthest, bound])
        return node(graph, "Cast", [is_far], to=onnx.TensorProto.FLOAT)

    with pytest.raises(ExportError, match="changes at position"):
        certify(leaking(candidate, outlier, 0.5))


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-prenorm"])
def test_no_strategy_hides_a_leak_of_other_rows(candidates: Candidates, name: str) -> None:
    candidate = leaking(candidates(name), batch_mean, 1e-6)
    with pytest.raises(ExportError, match=r"changes with its batch by up to .*e-0\d \(output 'logits' at position"):
        certify(candidate)
    certificate = certify(accepting(candidate))
    assert (certificate.invariance.level, certificate.invariance.strategy) == ("tolerance", "none")
    assert certificate.invariance.measured == certificate.max_differences["logits"] > 0


def test_a_leak_larger_than_the_tolerance_is_refused(candidates: Candidates) -> None:
    with pytest.raises(ExportError, match=r"invariance: output 'logits' of an item changes at position .* by "):
        certify(leaking(candidates("tiny-lstm"), batch_mean, 1e-1))


def test_a_value_that_is_not_finite_agrees_with_none(candidates: Candidates) -> None:
    infinite = leaking(candidates("tiny-lstm"), lambda graph, _: constant(graph, 1, "float32"), np.inf)
    with pytest.raises(ExportError, match=r"invariance: output 'logits' of an item changes at position .* by inf"):
        certify(infinite)


def test_a_strategy_must_hold_for_the_golden_cases_too(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service checks golden rows at load, and a golden row may show a difference that no probe shows."""
    candidate = candidates("tiny-picture")
    assert certify(candidate).invariance.strategy == "none"

    def find_mismatches(session: Session, cases: object) -> list[Mismatch]:
        is_invariant = session.manifest.invariance.strategy == "minimum-batch-2"
        return [] if is_invariant else [Mismatch(case=0, row=1, output="logits", difference=1e-7)]

    monkeypatch.setattr("export.gates.batch_invariance.find_mismatches", find_mismatches)
    certificate = certify(candidate)
    assert (certificate.invariance.level, certificate.invariance.strategy) == ("bitwise", "minimum-batch-2")
    monkeypatch.setattr(
        "export.gates.batch_invariance.find_mismatches",
        lambda session, cases: [Mismatch(case=0, row=1, output="x", difference=1e-7)],
    )
    with pytest.raises(ExportError, match="changes with its batch by up to 1e-07 \\(a golden case\\)"):
        certify(candidate)
    invariance = certify(accepting(candidate)).invariance
    assert (invariance.level, invariance.strategy, invariance.measured) == ("tolerance", "none", 1e-7)


def test_probes_are_placed_at_every_position() -> None:
    for batch in range(1, 201):
        rounds = list(probe_positions(batch))
        assert {position for positions in rounds for position in positions} == set(range(batch)), batch
        assert len(rounds) <= batch + 3


@pytest.mark.parametrize("size_of_batch", [size for size in LARGE_SIZES if size % 32 == 0])
def test_batches_that_exceed_the_requests_of_the_model_are_compared(candidates: Candidates, size_of_batch: int) -> None:
    def one_large_size(graph: onnx.GraphProto, logits: str) -> str:
        is_large = node(graph, "Equal", [size(graph, logits, 0), constant(graph, size_of_batch, "int64")])
        return node(graph, "Cast", [is_large], to=onnx.TensorProto.FLOAT)

    candidate = candidates("tiny-lstm")
    assert candidate.manifest.limits.max_items < size_of_batch
    with pytest.raises(ExportError, match=rf"position \d+ of a batch of {size_of_batch}"):
        certify(leaking(candidate, one_large_size, 1e-6))
