"""Whether two results are the same answer: the one definition that export gates, goldens and tests share.

Floats agree where |served - reference| <= atol + rtol * |reference|; integers (pixels) may be off by one where a value
sits on a rounding edge, in at most one element of a thousand. A value that is not finite never agrees, not even with
itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import Bundle, GoldenCase
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import check_alone
from service.errors import BundleError

ROUNDING_EDGES = 1000  # one element of so many may be off by one


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`worst` is the largest absolute difference; `index` is where the tolerance is missed most (or nearest to it)."""

    within: bool
    worst: float
    index: tuple[int, ...]
    detail: str


def compare(reference: npt.NDArray[Any], served: npt.NDArray[Any], *, atol: float, rtol: float) -> Difference:
    """Compare in float64; arrays of other shape or kind are infinitely far apart."""
    if reference.shape != served.shape:
        return _apart(f"shape {list(served.shape)}, expected {list(reference.shape)}")
    if (reference.dtype.kind in "iu") != (served.dtype.kind in "iu"):
        return _apart(f"dtype {served.dtype}, expected {reference.dtype}")
    if not reference.size:
        return Difference(within=True, worst=0.0, index=(), detail="no elements")
    exact, given = reference.astype(np.float64), served.astype(np.float64)
    finite = np.isfinite(exact) & np.isfinite(given)
    distance = np.full(exact.shape, np.inf)
    np.subtract(given, exact, out=distance, where=finite)
    np.abs(distance, out=distance)
    if reference.dtype.kind in "iu":
        excess = distance - 1
        within = excess.max() <= 0 and np.count_nonzero(distance) <= math.ceil(reference.size / ROUNDING_EDGES)
    else:
        excess = distance - (atol + rtol * np.abs(np.where(finite, exact, 0.0)))
        within = excess.max() <= 0
    index = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
    detail = f"{served[index]} at {list(index)}, expected {reference[index]}"
    return Difference(within=bool(within), worst=float(distance.max()), index=index, detail=detail)


def _apart(detail: str) -> Difference:
    return Difference(within=False, worst=math.inf, index=(), detail=detail)


def replay(session: Session, bundle: Bundle) -> dict[str, float]:
    """Run every golden case on the session's device: output -> largest absolute difference to the PyTorch model.

    Raises BundleError that names the output, case and difference that is furthest out of tolerance, or a row whose bits
    depend on its batch though the manifest says they do not.
    """
    cases = dict(enumerate(bundle.golden))
    measured = replay_cases(session, cases)
    check_alone(session, cases)
    return measured


def replay_cases(session: Session, cases: Mapping[int, GoldenCase]) -> dict[str, float]:
    """`replay` for some of a bundle's golden cases, by their numbers."""
    manifest = session.manifest
    measured: dict[str, float] = {}
    failed: list[tuple[float, str]] = []
    for number, case in cases.items():
        served = session.run(case.inputs, tuple(case.outputs))
        for name, expected in case.outputs.items():
            tolerance = manifest.tolerance[name]
            difference = compare(expected, served[name], atol=tolerance.atol, rtol=tolerance.rtol)
            measured[name] = max(measured.get(name, 0.0), difference.worst)
            if not difference.within:
                shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in case.inputs.items())
                sentence = (
                    f"{manifest.name}/{manifest.version}: golden case {number} ({shapes}): output {name!r} on "
                    f"{session.provider} is {difference.worst:.3g} away from the PyTorch model "
                    f"(atol {tolerance.atol:g}, rtol {tolerance.rtol:g}): {difference.detail}"
                )
                failed.append((difference.worst, sentence))
    if failed:
        raise BundleError(max(failed)[1])
    return measured
