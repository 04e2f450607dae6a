"""An honest export of every family passes every gate."""

from export.candidate import Candidate
from export.prove import prove


def test_every_family_passes_every_gate(candidate: Candidate) -> None:
    gates: list[str] = []
    proof = prove(candidate, gates.append)
    assert gates == ["structure", "parity", "metric", "goldens", "invariance", "requests"]
    assert {point.output for point in proof.parity.points} == set(candidate.manifest.tolerance)
    assert all(point.used < 0.5 for point in proof.parity.points)
    assert len(proof.requests) >= 4
    assert len(proof.golden) >= 3
