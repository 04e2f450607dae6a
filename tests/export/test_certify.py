"""Invariance is measured, the cheapest strategy that gives it is found, and neighbours that matter are found out."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.candidate import Candidate, ExportError
from export.certify import certify
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import Mismatch
from tests.export.conftest import Candidates

Leak = Callable[[onnx.GraphProto, str], str]  # adds nodes that use `logits`, returns what to add to them


def node(graph: onnx.GraphProto, operator: str, inputs: list[str], **attributes: object) -> str:
    name = f"leak_{len(graph.node)}"
    graph.node.append(helper.make_node(operator, inputs, [name], **attributes))
    return name


def number(graph: onnx.GraphProto, value: object, dtype: str) -> str:
    name = f"number_{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
    return name


def size(graph: onnx.GraphProto, tensor: str, axis: int) -> str:
    return node(graph, "Gather", [node(graph, "Shape", [tensor]), number(graph, axis, "int64")])


def batch_of_one(graph: onnx.GraphProto, logits: str) -> str:
    alone = node(graph, "Equal", [size(graph, logits, 0), number(graph, 1, "int64")])
    return node(graph, "Cast", [alone], to=onnx.TensorProto.FLOAT)


def ragged_batch(graph: onnx.GraphProto, logits: str) -> str:
    rest = node(graph, "Mod", [size(graph, logits, 0), number(graph, 4, "int64")])
    return node(graph, "Cast", [rest], to=onnx.TensorProto.FLOAT)


def odd_width(graph: onnx.GraphProto, logits: str) -> str:
    return node(graph, "Cast", [size(graph, "series", 1)], to=onnx.TensorProto.FLOAT)


def one_width(graph: onnx.GraphProto, logits: str) -> str:
    five = node(graph, "Equal", [size(graph, "series", 1), number(graph, 5, "int64")])
    return node(graph, "Cast", [five], to=onnx.TensorProto.FLOAT)


def one_size(graph: onnx.GraphProto, logits: str) -> str:
    eleven = node(graph, "Equal", [size(graph, logits, 0), number(graph, 11, "int64")])
    return node(graph, "Cast", [eleven], to=onnx.TensorProto.FLOAT)


def neighbours(graph: onnx.GraphProto, logits: str) -> str:
    return node(graph, "ReduceMean", [logits, number(graph, [0], "int64")], keepdims=1)


def leaking(candidate: Candidate, leak: Leak, scale: float) -> Candidate:
    """The candidate with `scale` times the leak added to its logits."""
    model = onnx.load_from_string(candidate.model)
    graph = model.graph
    for each in graph.node:
        for i, name in enumerate(each.output):
            each.output[i] = "honest" if name == "logits" else name
        for i, name in enumerate(each.input):
            each.input[i] = "honest" if name == "logits" else name
    added = node(graph, "Mul", [leak(graph, "honest"), number(graph, scale, "float32")])
    graph.node.append(helper.make_node("Add", ["honest", added], ["logits"]))
    return replace(candidate, model=model.SerializeToString())


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-rnn", "tiny-prenorm", "tiny-gan"])
def test_a_session_without_a_leak_is_certified(candidates: Candidates, name: str) -> None:
    certificate = certify(candidates(name))
    assert certificate.compared > 100
    assert (certificate.equal == certificate.compared) == (certificate.invariance.level == "bitwise")
    assert certificate.invariance.measured == max(certificate.worst.values()) < 1e-6


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
def test_the_cheapest_strategy_that_helps_is_found(candidates: Candidates, leak: Leak, strategy: str) -> None:
    """tiny-lstm, whose own kernels need none, made to depend on the shape that it runs at."""
    candidate = leaking(candidates("tiny-lstm"), leak, 1e-6)
    certificate = certify(candidate)
    assert (certificate.invariance.level, certificate.invariance.strategy) == ("bitwise", strategy)
    assert certificate.invariance.measured == 0
    assert certificate.equal == certificate.compared > 100
    assert candidate.with_invariance(certificate.invariance).session.manifest.invariance.strategy == strategy


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-prenorm"])
def test_no_strategy_hides_neighbours(candidates: Candidates, name: str) -> None:
    certificate = certify(leaking(candidates(name), neighbours, 1e-6))
    assert (certificate.invariance.level, certificate.invariance.strategy) == ("tolerance", "none")
    assert certificate.invariance.measured == certificate.worst["logits"] > 0


def test_a_leak_beyond_the_tolerance_is_refused(candidates: Candidates) -> None:
    with pytest.raises(ExportError, match=r"invariance: output 'logits' of an item changes at position .* by "):
        certify(leaking(candidates("tiny-lstm"), neighbours, 1e-1))


def test_a_strategy_must_hold_for_the_golden_cases_too(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the probes do not see, the golden rows may; and they are what is looked at when a bundle is loaded."""
    candidate = candidates("tiny-picture")
    assert certify(candidate).invariance.strategy == "none"

    def moves(session: Session, cases: object) -> list[Mismatch]:
        held = session.manifest.invariance.strategy == "minimum-batch-2"
        return [] if held else [Mismatch(case=0, row=1, output="logits", difference=1e-7)]

    monkeypatch.setattr("export.certify.find_mismatches", moves)
    certificate = certify(candidate)
    assert (certificate.invariance.level, certificate.invariance.strategy) == ("bitwise", "minimum-batch-2")
    monkeypatch.setattr(
        "export.certify.find_mismatches", lambda session, cases: [Mismatch(case=0, row=1, output="x", difference=1e-7)]
    )
    refused = certify(candidate).invariance
    assert (refused.level, refused.strategy, refused.measured) == ("tolerance", "none", 1e-7)
