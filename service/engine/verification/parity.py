"""Decide whether two results agree: the one definition that export gates, goldens and tests share.

Floats agree if |actual - reference| <= atol + rtol * |reference|. Pixels (uint8) may differ by one in one element of a
thousand, because a value on a rounding edge can round either way. All others agree if they are equal. A value that is
not finite agrees with none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import GoldenCase
from service.engine.sessions.session import Session
from service.engine.verification.golden_inputs import complete_inputs
from service.engine.verification.slices import Index, slices
from service.errors import BundleError
from service.manifest import Manifest

ELEMENTS_PER_ROUNDING_EDGE = 1000  # one element in this many may differ by one
# On a CPU, a golden value may differ by this many times the rounding error that PyTorch showed at export. Measured on
# five models: with other CPU settings for PyTorch's kernels, float32 error changed by up to 1.7 times, and the error of
# onnxruntime was up to 3.1 times that of PyTorch. onnxruntime itself was not run on another processor.
ROUNDING_FACTOR = 8.0
MIN_ROUNDING = 2.0**-22
MIN_MAGNITUDE = 0.01  # rows of smaller values count as rows of this magnitude


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`worst`: largest absolute difference; `index`: element furthest out of tolerance. Defaults: not comparable."""

    within: bool = False
    worst: float = math.inf
    index: tuple[int, ...] = ()
    detail: str


def compare(
    reference: npt.NDArray[Any],
    actual: npt.NDArray[Any],
    *,
    atol: float,
    rtol: float,
    limit: npt.NDArray[np.float64] | None = None,
) -> Difference:
    """Compare in float64; arrays that differ in shape or kind of dtype are infinitely far apart.

    `limit`, which broadcasts to the arrays, lowers what floats are allowed where it is smaller than the tolerance.
    """
    if reference.shape != actual.shape:
        return Difference(detail=f"shape {list(actual.shape)}, expected {list(reference.shape)}")
    if reference.dtype.kind != actual.dtype.kind:
        return Difference(detail=f"dtype {actual.dtype}, expected {reference.dtype}")
    if not reference.size:
        return Difference(within=True, worst=0.0, detail="no elements")
    if reference.dtype.kind not in "fiu":
        return _compare_equal(reference, actual)
    is_pixel = reference.dtype == np.uint8
    limits = None if limit is None else np.broadcast_to(limit, reference.shape)
    worst, num_edges, furthest, place = 0.0, 0, -math.inf, (0,) * reference.ndim
    for index in slices(reference.shape):
        distance, allowed = _distances(reference[index], actual[index], atol=atol, rtol=rtol)
        if limits is not None and reference.dtype.kind == "f":
            # The limit of a row with a value that is not finite is none; that value itself is refused.
            allowed = np.fmin(allowed, limits[index])
        worst, num_edges = max(worst, float(distance.max())), num_edges + int(np.count_nonzero(distance))
        excess = distance - allowed
        if excess.max() > furthest:
            furthest, place = float(excess.max()), _place(index, excess)
    within = furthest <= 0 and (not is_pixel or num_edges <= math.ceil(reference.size / ELEMENTS_PER_ROUNDING_EDGE))
    return _difference(reference, actual, place, within=within, worst=worst)


def _distances(
    reference: npt.NDArray[Any], actual: npt.NDArray[Any], *, atol: float, rtol: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the distance of each element, infinite if it is not finite, and what the tolerance allows."""
    expected_f64, actual_f64 = reference.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(expected_f64) & np.isfinite(actual_f64)
    distance = np.full(expected_f64.shape, np.inf)
    np.subtract(actual_f64, expected_f64, out=distance, where=finite)
    np.abs(distance, out=distance)
    if reference.dtype.kind == "f":
        return distance, atol + rtol * np.abs(np.where(finite, expected_f64, 0.0))
    # In float64, neighbouring integers beyond 2^53 are equal.
    distance[(reference != actual) & (distance < 1)] = 1
    return distance, np.full_like(distance, reference.dtype == np.uint8)


def _place(index: Index, excess: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """Return where the largest element of a slice is in the whole array."""
    inside = np.unravel_index(int(excess.argmax()), excess.shape)
    starts = [part.start for part in index] + [0] * (excess.ndim - len(index))
    return tuple(start + int(i) for start, i in zip(starts, inside, strict=True))


def _compare_equal(reference: npt.NDArray[Any], actual: npt.NDArray[Any]) -> Difference:
    """Compare texts or booleans, of which different ones are infinitely far apart."""
    distance = np.where(reference == actual, 0.0, np.inf)
    return _difference(reference, actual, _place((), distance), within=not distance.any(), worst=float(distance.max()))


def _difference(
    reference: npt.NDArray[Any], actual: npt.NDArray[Any], index: tuple[int, ...], *, within: bool, worst: float
) -> Difference:
    detail = f"{actual[index]} at {list(index)}, expected {reference[index]}"
    return Difference(within=within, worst=worst, index=index, detail=detail)


def relative_error(reference: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    """Return the largest difference relative to the magnitude of its row."""
    magnitude = np.broadcast_to(_row_magnitude(reference), reference.shape)
    return max(
        float((np.abs(actual[index].astype(np.float64) - reference[index]) / magnitude[index]).max(initial=0.0))
        for index in slices(reference.shape)
    )


def _row_magnitude(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the largest magnitude of each row of a batch, in a shape that broadcasts to the batch."""
    axes = tuple(range(1, values.ndim))
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    highest = values.max(axis=axes, keepdims=True, initial=0).astype(np.float64)
    lowest = values.min(axis=axes, keepdims=True, initial=0).astype(np.float64)
    magnitude: npt.NDArray[np.float64] = np.maximum(np.maximum(highest, -lowest), MIN_MAGNITUDE)
    return magnitude


def rounding_limit(session: Session, output: str, expected: npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
    """Return how far rounding may move each golden value on a CPU; None on other devices and for old bundles."""
    rounding = session.manifest.tolerance[output].rounding
    if rounding is None or session.device != "cpu":
        return None
    return ROUNDING_FACTOR * max(rounding, MIN_ROUNDING) * _row_magnitude(expected)


def replay_cases(session: Session, cases: Mapping[int, GoldenCase]) -> dict[str, float]:
    """Run the golden cases, keyed by case number; return the largest absolute difference to PyTorch by output.

    Raises BundleError for the largest difference that is out of tolerance.
    """
    manifest = session.manifest
    measured: dict[str, float] = {}
    failures: list[tuple[float, str]] = []
    for number, case in cases.items():
        outputs = session.run(complete_inputs(session, case.inputs), tuple(case.outputs))
        for name, expected in case.outputs.items():
            tolerance, limit = manifest.tolerance[name], rounding_limit(session, name, expected)
            difference = compare(expected, outputs[name], atol=tolerance.atol, rtol=tolerance.rtol, limit=limit)
            measured[name] = max(measured.get(name, 0.0), difference.worst)
            if not difference.within:
                shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in case.inputs.items())
                message = (
                    f"{manifest.name}/{manifest.version}: golden case {number} ({shapes}): output {name!r} on "
                    f"{session.provider} is {difference.worst:.3g} away from {_reference(manifest)} "
                    f"(atol {tolerance.atol:g}, rtol {tolerance.rtol:g}{_rounding_part(limit)}): {difference.detail}"
                )
                failures.append((difference.worst, message))
    if failures:
        raise BundleError(max(failures)[1])
    return measured


def row_ratios(session: Session, case: GoldenCase) -> npt.NDArray[np.float64]:
    """Return [2, rows]: the largest difference of the floats of a row, relative to what replay and tolerance allow.

    The other outputs count only in a case without floats: each pixel may round either way, and floats show more. A row
    of a correct graph has ratios of at most 1. Raises ValueError or RuntimeError if the graph fails.
    """
    outputs = session.run(complete_inputs(session, case.inputs), tuple(case.outputs))
    ratios = np.zeros((2, len(next(iter(case.inputs.values())))))
    has_floats = any(expected.dtype.kind == "f" for expected in case.outputs.values())
    for name, expected in case.outputs.items():
        if outputs[name].shape != expected.shape:
            raise ValueError(f"output {name!r} has shape {list(outputs[name].shape)}, expected {list(expected.shape)}")
        if not has_floats:
            ratios = np.maximum(ratios, _other_ratios(expected, outputs[name]))
        elif expected.dtype.kind == "f":
            tolerance, limit = session.manifest.tolerance[name], rounding_limit(session, name, expected)
            distance = np.abs(outputs[name].astype(np.float64) - expected)
            distance[~np.isfinite(distance)] = np.inf
            allowed = tolerance.atol + tolerance.rtol * np.abs(expected.astype(np.float64))
            bounds = (allowed if limit is None else np.minimum(allowed, limit), allowed)
            rows = [(distance / bound).reshape(ratios.shape[1], -1).max(1, initial=0.0) for bound in bounds]
            ratios = np.maximum(ratios, rows)
    return ratios


def _other_ratios(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the ratio of each row of pixels, texts, booleans or integers; one that must be equal is 0 or infinite."""
    is_different = (expected != actual).reshape(len(expected), -1)
    if expected.dtype != np.uint8:
        return np.where(is_different.any(axis=1), np.inf, 0.0)
    distance = np.abs(expected.astype(np.float64) - actual).reshape(is_different.shape)
    edges = np.ceil(is_different.shape[1] / ELEMENTS_PER_ROUNDING_EDGE)
    ratios: npt.NDArray[np.float64] = np.maximum(distance.max(axis=1, initial=0.0), is_different.sum(axis=1) / edges)
    return ratios


def _reference(manifest: Manifest) -> str:
    reference = manifest.provenance.reference
    return "the PyTorch model" if reference == "PyTorch" else reference


def _rounding_part(limit: npt.NDArray[np.float64] | None) -> str:
    return "" if limit is None else f", at most {limit.max():.3g} by rounding"
