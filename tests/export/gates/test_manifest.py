"""The manifest of a candidate declares what its run says."""

from dataclasses import replace
from typing import Any

import pytest

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.manifest import check_manifest
from export.gates.proof import prove
from service.manifest import Invariance, RequestLimits, Tolerance, ValueRange
from tests.export.conftest import Candidates


def changed(candidate: Candidate, **fields: Any) -> Candidate:
    return replace(candidate, manifest=candidate.manifest.model_copy(update=fields))


def provenance(candidate: Candidate, **fields: Any) -> Candidate:
    return changed(candidate, provenance=candidate.manifest.provenance.model_copy(update=fields))


def test_the_manifest_of_a_run_passes(candidate: Candidate) -> None:
    check_manifest(candidate)


def test_measured_values_and_packages_may_differ(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    tolerance = {
        name: one.model_copy(update={"measured": 0.5, "rounding": 0.25})
        for name, one in candidate.manifest.tolerance.items()
    }
    measured = changed(
        candidate,
        tolerance=tolerance,
        domain={"series": ValueRange(low=-1.0, high=1.0)},
        invariance=Invariance(level="bitwise", measured=0.0, how="measured"),
    )
    check_manifest(provenance(measured, versions={"torch": "0"}))


def test_a_manifest_that_differs_from_the_run_is_refused(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    limits = candidate.manifest.limits
    loose = {name: Tolerance(atol=0.01, rtol=1e-4, measured=0.0) for name in candidate.manifest.tolerance}
    relative = {name: Tolerance(atol=1e-5, rtol=0.01, measured=0.0) for name in candidate.manifest.tolerance}
    assert limits.max_steps is not None
    longer = RequestLimits(max_items=limits.max_items, max_steps=limits.max_steps + 1)
    more = RequestLimits(max_items=limits.max_items + 1, max_steps=limits.max_steps)
    for name, other in {
        "tolerance.logits": changed(candidate, tolerance=loose),
        r"tolerance.logits is .* 0.01": changed(candidate, tolerance=relative),
        f"limits.max_steps is {longer.max_steps}, the source has {limits.max_steps}": changed(candidate, limits=longer),
        "limits.max_items": changed(candidate, limits=more),
        "summary": changed(candidate, summary="Another model."),
        "name": changed(candidate, name="another"),
        "control_flow": changed(candidate, control_flow=True),
        "provenance.metrics": provenance(candidate, metrics={"test_accuracy": 1.0}),
        "provenance.seed": provenance(candidate, seed=12345),
        "provenance.data ": provenance(candidate, data={"another": "0" * 64}),
    }.items():
        with pytest.raises(ExportError, match=f"^manifest: {name}"):
            check_manifest(other)


def test_a_long_value_is_cut(candidates: Candidates) -> None:
    with pytest.raises(ExportError, match=r"^manifest: summary is 'x{79}\.\.\., the source has"):
        check_manifest(changed(candidates("tiny-lstm"), summary="x" * 1000))


def test_the_proof_compares_the_manifest(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    loose = {name: Tolerance(atol=0.01, rtol=1e-4, measured=0.0) for name in candidate.manifest.tolerance}
    with pytest.raises(ExportError, match=r"^manifest: tolerance\.logits"):
        prove(changed(candidate, tolerance=loose), lambda _: None)
