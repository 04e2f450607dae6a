"""The parity gate: the graph and its reference agree at every batch size and length, over the whole domain.

Each output is finite and |onnx - reference| <= atol + rtol * |reference|. So the top label or token is the same, unless
the reference's two best scores are closer than both tolerances together. A grid of sizes is measured in detail: a
float64 reference tells how much of a difference between the two float32 results is the error of each, and a second run
must give the same bits. After the grid follow every length, every size of a free axis, every batch size and structured
inputs, each element of each output compared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.backends import Backend, reference_backend, session_backend
from export.gates.cases import Array, Case, has_equal_bits, parity_cases
from export.gates.coverage.cached import check_cached
from export.gates.coverage.comparison import Coverage, describe
from export.gates.coverage.domain import with_domain
from export.gates.coverage.sizes import check_axes, check_batch_sizes, check_lengths
from export.gates.coverage.structured import check_structured
from export.gates.inputs.effort import max_rows
from export.gates.inputs.sizes import Sizes, free_axes, longest_row
from service.contract.heads import LanguageModelHead
from service.engine.verification.parity import compare
from service.engine.verification.slices import slices
from service.manifest import Tolerance, ValueRange

# A batch of the grid has at most this share of the rows of one part of a gate; every batch size follows in a coverage.
GRID_SHARE = 4


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One output of one case.

    `max_difference` is the largest |onnx - reference|, `tolerance_share` the largest share of its tolerance that an
    element uses. The two errors are the largest distances from the float64 reference.
    """

    case: str
    output: str
    max_difference: float
    tolerance_share: float
    torch_error: float
    onnx_error: float


@dataclass(frozen=True, kw_only=True)
class Parity:
    """A model within its tolerances: the measurements of the grid, what else was compared, and the proven domain."""

    measurements: tuple[Measurement, ...]
    coverages: tuple[Coverage, ...] = ()
    domain: Mapping[str, ValueRange] = field(default_factory=dict)

    def of_output(self, output: str) -> list[Measurement]:
        """The measurements of one output, a case each."""
        return [measurement for measurement in self.measurements if measurement.output == output]

    def largest(self, output: str) -> Measurement:
        """The case in which this output differs most."""
        return max(self.of_output(output), key=lambda measurement: measurement.max_difference)

    def float64_errors(self, output: str) -> tuple[float, float]:
        """The reference's and ONNX Runtime's largest distance from float64 over all cases."""
        measurements = self.of_output(output)
        return max(one.torch_error for one in measurements), max(one.onnx_error for one in measurements)


def check_parity(candidate: Candidate) -> Parity:
    """Compare the grid and all coverages. Raises ExportError that names the output and the case."""
    candidate = with_domain(candidate)
    source, manifest = candidate.source, candidate.manifest
    torch32, torch64 = reference_backend(source), reference_backend(source, float64=True)

    def max_batch(sizes: Sizes, steps: int | None) -> int:
        return max_rows(candidate, sizes, steps) // GRID_SHARE

    cases = parity_cases(source, manifest, max_batch)
    grid = compare_backends(candidate, cases, torch32, torch64, session_backend(candidate.session))
    domain = dict(manifest.domain)
    coverages: list[Coverage] = []
    if isinstance(manifest.head, LanguageModelHead):
        coverages += check_cached(candidate)
    else:
        coverages += [check_lengths(candidate)] if longest_row(manifest) is not None else []
        coverages += [check_axes(candidate)] if free_axes(manifest) else []
        coverages += [check_batch_sizes(candidate)] if manifest.is_batched else []
    coverages.append(check_structured(candidate, domain))
    return replace(grid, coverages=tuple(coverages), domain=domain)


def compare_backends(
    candidate: Candidate, cases: Iterable[Case], torch32: Backend, torch64: Backend, onnx32: Backend
) -> Parity:
    """Compare `onnx32` with `torch32` on every case. Raises ExportError."""
    measurements: list[Measurement] = []
    # (is_float, difference, message): a float output outranks pixels, whose differences have another scale.
    failures: list[tuple[bool, float, str]] = []
    for case in cases:
        expected, exact, actual = torch32(case), torch64(case), _run_twice(case, onnx32)
        for output, tolerance in candidate.manifest.tolerance.items():
            difference = compare(expected[output], actual[output], atol=tolerance.atol, rtol=tolerance.rtol)
            if difference.within:
                arrays = (expected[output], actual[output], exact[output])
                measurements.append(_measurement(case, output, arrays, tolerance))
            else:
                message = describe(output, case.name, expected[output], difference, tolerance)
                failures.append((expected[output].dtype.kind == "f", difference.worst, message))
    if failures:
        _, _, message = max(failures, key=lambda failure: failure[:2])
        raise ExportError("parity", f"{message}; {len(failures)} comparisons are out of tolerance")
    return Parity(measurements=tuple(measurements))


def _run_twice(case: Case, onnx32: Backend) -> dict[str, Array]:
    """The graph's outputs. Raises ExportError if it fails, or if a second run gives other bits."""
    try:
        first, second = onnx32(case), onnx32(case)
    except (ValueError, RuntimeError) as error:
        raise ExportError("parity", f"{case.name}: {error}") from error
    for output, values in first.items():
        if not has_equal_bits(values, second[output]):
            raise ExportError("parity", f"output {output!r} differs between two runs of the same input on {case.name}")
    return first


def _measurement(case: Case, output: str, arrays: tuple[Array, Array, Array], tolerance: Tolerance) -> Measurement:
    if arrays[0].dtype.kind not in "fiu":
        # Texts and booleans that agree are equal.
        return Measurement(
            case=case.name, output=output, max_difference=0, tolerance_share=0, torch_error=0, onnx_error=0
        )
    is_integer = arrays[0].dtype.kind in "iu"
    largest = np.zeros(4)
    for index in slices(arrays[0].shape):
        expected, actual, exact = (array[index].astype(np.float64) for array in arrays)
        distance = np.abs(actual - expected)
        allowed = np.ones_like(expected) if is_integer else tolerance.atol + tolerance.rtol * np.abs(expected)
        values = (distance, distance / allowed, np.abs(expected - exact), np.abs(actual - exact))
        largest = np.maximum(largest, [value.max(initial=0.0) for value in values])
    difference, share, torch_error, onnx_error = largest.tolist()
    return Measurement(
        case=case.name,
        output=output,
        max_difference=difference,
        tolerance_share=share,
        torch_error=torch_error,
        onnx_error=onnx_error,
    )
