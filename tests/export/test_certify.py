"""Invariance is measured, and neighbours that matter are found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from export.candidate import Candidate, ExportError
from export.certify import certify
from tests.export.conftest import Candidates


class Leaking:
    """A session whose answers hold a trace of the other items of the batch."""

    def __init__(self, candidate: Candidate, leak: float) -> None:
        self.manifest, self.honest, self.leak = candidate.manifest, candidate.session, np.float32(leak)

    def run(self, inputs: Any, outputs: Any = None) -> dict[str, Any]:
        answers = self.honest.run(inputs, outputs)
        return {**answers, "logits": answers["logits"] + self.leak * len(answers["logits"])}


def leaking(candidate: Candidate, leak: float) -> Candidate:
    fake = replace(candidate)
    fake.__dict__["session"] = Leaking(candidate, leak)
    return fake


def test_a_session_without_a_leak_is_certified(candidates: Candidates) -> None:
    certificate = certify(candidates("tiny-lstm"))
    assert certificate.compared > 100
    assert (certificate.equal == certificate.compared) == (certificate.invariance.level == "bitwise")
    assert certificate.invariance.measured == max(certificate.worst.values()) < 1e-6


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-text", "tiny-tagger", "tiny-prenorm"])
def test_a_small_leak_is_no_longer_bitwise(candidates: Candidates, name: str) -> None:
    certificate = certify(leaking(candidates(name), 1e-7))
    assert certificate.invariance.level == "tolerance"
    assert certificate.worst["logits"] > 1e-7


def test_a_leak_beyond_the_tolerance_is_refused(candidates: Candidates) -> None:
    with pytest.raises(ExportError, match=r"invariance: output 'logits' of an item changes at position .* by "):
        certify(leaking(candidates("tiny-lstm"), 1e-3))
