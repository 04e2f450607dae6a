"""A correct export of every family passes every gate."""

from export.candidate import Candidate
from tests.export.conftest import Proofs


def test_every_family_passes_every_gate(candidate: Candidate, proofs: Proofs, stages: dict[str, list[str]]) -> None:
    name = candidate.manifest.name
    proof = proofs(name)
    assert stages[name] == [
        "structure",
        "vocabulary",
        "weights",
        "parity",
        "metric",
        "goldens",
        "invariance",
        "requests",
    ]
    assert {measurement.output for measurement in proof.parity.measurements} == set(candidate.manifest.tolerance)
    assert all(measurement.tolerance_share < 0.5 for measurement in proof.parity.measurements)
    assert proof.weights.num_initializers > 5
    assert len(proof.requests) >= 4
    assert len(proof.golden) >= 3
    assert bool(proof.tokens) == (candidate.tokenizer is not None)
