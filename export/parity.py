"""Gate 2, parity: the graph answers as the PyTorch model does, at every batch and length, on real and random items.

Each output is finite and |onnx - torch| <= atol + rtol * |torch|, and the best label or token is the same unless
PyTorch's own two best are nearer to each other than that. A float64 run is the referee: of a difference between two
float32 results it says how far each of them is from the truth.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from export.answers import Answer, by_session, by_torch
from export.candidate import Candidate, ExportError
from export.cases import Array, Case, parity_cases
from service.engine.verification.parity import compare
from service.manifest import Tolerance


@dataclass(frozen=True, kw_only=True)
class Point:
    """One output of one case."""

    case: str
    output: str
    worst: float  # largest |onnx - torch|
    used: float  # largest share of its tolerance that an element used
    torch_off: float  # distance of the two float32 results from float64
    onnx_off: float


@dataclass(frozen=True, kw_only=True)
class Parity:
    points: tuple[Point, ...]

    def worst(self, output: str) -> Point:
        return max((point for point in self.points if point.output == output), key=lambda point: point.worst)

    def furthest(self, output: str) -> tuple[float, float]:
        """Over all cases: PyTorch's and ONNX Runtime's largest distance from float64."""
        points = [point for point in self.points if point.output == output]
        return max(point.torch_off for point in points), max(point.onnx_off for point in points)


def check_parity(candidate: Candidate) -> Parity:
    """Compare on the whole grid. Raises ExportError that names what is furthest out of tolerance."""
    cases = parity_cases(candidate.run, candidate.manifest)
    torch32, torch64 = by_torch(candidate.run), by_torch(candidate.run, double=True)
    return compare_answers(candidate, cases, torch32, torch64, by_session(candidate.session))


def compare_answers(
    candidate: Candidate, cases: Iterable[Case], torch32: Answer, torch64: Answer, onnx32: Answer
) -> Parity:
    points: list[Point] = []
    failures: list[tuple[bool, float, str]] = []  # pixels last: their differences are of another scale
    for case in cases:
        reference, truth = torch32(case), torch64(case)
        try:
            served = onnx32(case)
        except (ValueError, RuntimeError) as error:
            raise ExportError("parity", f"{case.name}: {error}") from error
        for output, tolerance in candidate.manifest.tolerance.items():
            difference = compare(reference[output], served[output], atol=tolerance.atol, rtol=tolerance.rtol)
            if difference.within:
                arrays = (reference[output], served[output], truth[output])
                points.append(_point(case, output, arrays, tolerance))
            else:
                sentence = _sentence(output, case, difference.worst, difference.detail, tolerance)
                failures.append((reference[output].dtype.kind == "f", difference.worst, sentence))
        if "logits" in reference and not failures:
            _check_best(case, reference["logits"], served["logits"], candidate.manifest.tolerance["logits"])
    if failures:
        _, _, sentence = max(failures, key=lambda failure: failure[:2])
        raise ExportError("parity", f"{sentence}; {len(failures)} comparisons are out of tolerance")
    return Parity(points=tuple(points))


def _sentence(output: str, case: Case, worst: float, detail: str, tolerance: Tolerance) -> str:
    return (
        f"output {output!r} differs by {worst:.3g} (atol {tolerance.atol:g}, rtol {tolerance.rtol:g}) "
        f"on {case.name}: {detail}"
    )


def _point(case: Case, output: str, arrays: tuple[Array, Array, Array], tolerance: Tolerance) -> Point:
    exact, served, truth = (array.astype(np.float64) for array in arrays)
    distance = np.abs(served - exact)
    whole_numbers = arrays[0].dtype.kind in "iu"
    allowed = np.ones_like(exact) if whole_numbers else tolerance.atol + tolerance.rtol * np.abs(exact)
    return Point(
        case=case.name,
        output=output,
        worst=float(distance.max()),
        used=float((distance / allowed).max()),
        torch_off=float(np.abs(exact - truth).max()),
        onnx_off=float(np.abs(served - truth).max()),
    )


def _check_best(case: Case, reference: Array, served: Array, tolerance: Tolerance) -> None:
    differs = reference.argmax(-1) != served.argmax(-1)
    if not differs.any():
        return
    best = np.sort(reference[differs].astype(np.float64), axis=-1)
    margin = best[:, -1] - best[:, -2]
    if (margin > 2 * (tolerance.atol + tolerance.rtol * np.abs(best[:, -1]))).any():
        where = np.argwhere(differs)[int(margin.argmax())].tolist()
        raise ExportError(
            "parity", f"another best label at {where} of output 'logits' on {case.name}: margin {margin.max():.3g}"
        )
