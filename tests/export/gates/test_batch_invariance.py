"""The gate chooses the cheapest strategy that makes outputs invariant, and measures the outputs that are not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.batch_invariance import certify
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import Mismatch
from tests.export.conftest import Candidates

# Adds nodes that depend on the batch, and returns the name of the value to add to the logits.
Leak = Callable[[onnx.GraphProto, str], str]


def node(graph: onnx.GraphProto, operator: str, inputs: list[str], **attributes: object) -> str:
    name = f"leak_{len(graph.node)}"
    graph.node.append(helper.make_node(operator, inputs, [name], **attributes))
    return name


def constant(graph: onnx.GraphProto, value: object, dtype: str) -> str:
    name = f"constant_{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
    return name


def size(graph: onnx.GraphProto, tensor: str, axis: int) -> str:
    return node(graph, "Gather", [node(graph, "Shape", [tensor]), constant(graph, axis, "int64")])


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


def leaking(candidate: Candidate, leak: Leak, scale: float) -> Candidate:
    """The candidate with `scale` times the leak added to its logits."""
    model = onnx.load_from_string(candidate.model)
    graph = model.graph
    for other in graph.node:
        for names in (other.input, other.output):
            for i, name in enumerate(names):
                names[i] = "exact" if name == "logits" else name
    added = node(graph, "Mul", [leak(graph, "exact"), constant(graph, scale, "float32")])
    graph.node.append(helper.make_node("Add", ["exact", added], ["logits"]))
    return replace(candidate, model=model.SerializeToString())


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


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-prenorm"])
def test_no_strategy_hides_a_leak_of_other_rows(candidates: Candidates, name: str) -> None:
    certificate = certify(leaking(candidates(name), batch_mean, 1e-6))
    assert (certificate.invariance.level, certificate.invariance.strategy) == ("tolerance", "none")
    assert certificate.invariance.measured == certificate.max_differences["logits"] > 0


def test_a_leak_larger_than_the_tolerance_is_refused(candidates: Candidates) -> None:
    with pytest.raises(ExportError, match=r"invariance: output 'logits' of an item changes at position .* by "):
        certify(leaking(candidates("tiny-lstm"), batch_mean, 1e-1))


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
    invariance = certify(candidate).invariance
    assert (invariance.level, invariance.strategy, invariance.measured) == ("tolerance", "none", 1e-7)
