"""Decide whether two results agree: the one definition that export gates, goldens and tests share.

Floats agree if |actual - reference| <= atol + rtol * |reference|. Integers (pixels) may differ by one in one element of
a thousand, because a value on a rounding edge can round either way. A value that is not finite agrees with none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import Bundle, GoldenCase
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import check_batch_invariance
from service.errors import BundleError

ELEMENTS_PER_ROUNDING_EDGE = 1000  # one element in this many may differ by one


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`worst`: largest absolute difference; `index`: element furthest out of tolerance. Defaults: not comparable."""

    within: bool = False
    worst: float = math.inf
    index: tuple[int, ...] = ()
    detail: str


def compare(reference: npt.NDArray[Any], actual: npt.NDArray[Any], *, atol: float, rtol: float) -> Difference:
    """Compare in float64; arrays that differ in shape or kind of dtype are infinitely far apart."""
    if reference.shape != actual.shape:
        return Difference(detail=f"shape {list(actual.shape)}, expected {list(reference.shape)}")
    is_integer = reference.dtype.kind in "iu"
    if is_integer != (actual.dtype.kind in "iu"):
        return Difference(detail=f"dtype {actual.dtype}, expected {reference.dtype}")
    if not reference.size:
        return Difference(within=True, worst=0.0, detail="no elements")
    expected_f64, actual_f64 = reference.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(expected_f64) & np.isfinite(actual_f64)
    distance = np.full(expected_f64.shape, np.inf)
    np.subtract(actual_f64, expected_f64, out=distance, where=finite)
    np.abs(distance, out=distance)
    allowed = 1 if is_integer else atol + rtol * np.abs(np.where(finite, expected_f64, 0.0))
    excess = distance - allowed
    num_edges = np.count_nonzero(distance) if is_integer else 0
    within = excess.max() <= 0 and num_edges <= math.ceil(reference.size / ELEMENTS_PER_ROUNDING_EDGE)
    index = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
    detail = f"{actual[index]} at {list(index)}, expected {reference[index]}"
    return Difference(within=bool(within), worst=float(distance.max()), index=index, detail=detail)


def replay(session: Session, bundle: Bundle) -> dict[str, float]:
    """Run every golden case; return the largest absolute difference to the PyTorch model by output.

    Raises BundleError for the largest difference out of tolerance, or a row whose bits wrongly depend on its batch.
    """
    cases = dict(enumerate(bundle.golden))
    measured = replay_cases(session, cases)
    check_batch_invariance(session, cases)
    return measured


def replay_cases(session: Session, cases: Mapping[int, GoldenCase]) -> dict[str, float]:
    """Run the golden cases, keyed by case number, and compare them as `replay` does."""
    manifest = session.manifest
    measured: dict[str, float] = {}
    failures: list[tuple[float, str]] = []
    for number, case in cases.items():
        outputs = session.run(case.inputs, tuple(case.outputs))
        for name, expected in case.outputs.items():
            tolerance = manifest.tolerance[name]
            difference = compare(expected, outputs[name], atol=tolerance.atol, rtol=tolerance.rtol)
            measured[name] = max(measured.get(name, 0.0), difference.worst)
            if not difference.within:
                shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in case.inputs.items())
                message = (
                    f"{manifest.name}/{manifest.version}: golden case {number} ({shapes}): output {name!r} on "
                    f"{session.provider} is {difference.worst:.3g} away from the PyTorch model "
                    f"(atol {tolerance.atol:g}, rtol {tolerance.rtol:g}): {difference.detail}"
                )
                failures.append((difference.worst, message))
    if failures:
        raise BundleError(max(failures)[1])
    return measured
