"""Comparison of many batches with the reference: every element of every output, and the first difference is a refusal.

Some rows amplify float32 rounding: a long series in a recurrent network, or values far beyond the test data. No float32
implementation stays within the tolerance there, PyTorch included. Such a row may differ as much as rounding explains,
which the float64 reference measures: ERROR_RATIO times the error of the reference's float32 result, or NOISE_RATIO
times the effect of noise of NOISE_SCALE in its inputs.
"""

from dataclasses import dataclass, replace

import numpy as np

from export.errors import ExportError
from export.gates.backends import Backend
from export.gates.cases import Array, Case
from service.bundle import Tensors
from service.engine.verification.parity import Difference, compare
from service.manifest import Manifest, Tolerance

ERROR_RATIO = 16
NOISE_RATIO, NOISE_SCALE = 4, 1e-6
# An extreme row may use its tolerance this many times.
EXTREME_SHARE = 4


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a group of batches covers, their number, and the largest difference of each output.

    `num_excused` counts the items that were out of tolerance by no more than float32 rounding explains.
    """

    name: str
    num_batches: int
    num_items: int
    num_excused: int
    max_differences: dict[str, float]


class Comparison:
    """The batches of one group, compared one after the other. `exact` is the float64 reference, if there is one."""

    def __init__(self, manifest: Manifest, name: str, *, exact: Backend | None = None, gate: str = "parity") -> None:
        self._tolerances = manifest.tolerance
        self._name, self._gate, self._exact = name, gate, exact
        self._num_batches = self._num_items = self._num_excused = 0
        self._max_differences = dict.fromkeys(manifest.tolerance, 0.0)

    def add(self, case: Case, expected: Tensors, actual: Tensors) -> None:
        """Compare the outputs of one batch. Raises ExportError that names the output, the row and the values."""
        self._num_batches += 1
        num_items = len(next(iter(expected.values())))
        self._num_items += num_items
        is_excused = np.zeros(num_items, bool)
        for name, reference in expected.items():
            tolerance = self._tolerances[name]
            difference = compare(reference, actual[name], atol=tolerance.atol, rtol=tolerance.rtol)
            excused = None if difference.within else self._excused_rows(case, name, reference, actual[name])
            if excused is not None:
                is_excused |= excused
            elif not difference.within:
                row = case.describe(difference.index[0] if difference.index else 0)
                place = f"{self._name}, {row}"
                raise ExportError(self._gate, describe(name, place, reference, difference, tolerance))
            self._max_differences[name] = max(self._max_differences[name], difference.worst)
        self._num_excused += int(is_excused.sum())

    def result(self) -> Coverage:
        """What was compared so far."""
        return Coverage(
            name=self._name,
            num_batches=self._num_batches,
            num_items=self._num_items,
            num_excused=self._num_excused,
            max_differences=self._max_differences,
        )

    def _excused_rows(self, case: Case, output: str, expected: Array, actual: Array) -> Array | None:
        """The rows out of tolerance, if float32 rounding explains each of them; None if it does not."""
        if self._exact is None or expected.dtype.kind != "f" or expected.shape != actual.shape:
            return None
        exact = self._exact(case)[output].astype(np.float64)
        tolerance = self._tolerances[output]
        allowed = tolerance.atol + tolerance.rtol * np.abs(exact)

        def share(values: Array, center: Array) -> Array:
            return (np.abs(values - center) / allowed).reshape(len(exact), -1).max(axis=1)

        limit = np.maximum(EXTREME_SHARE if case.is_extreme else 1, ERROR_RATIO * share(expected, exact))
        limit = np.maximum(limit, NOISE_RATIO * share(self._exact(_with_noise(case))[output], exact))
        # A share that is not a number compares as false.
        if not (share(actual, exact) <= limit).all():
            return None
        is_excused: Array = share(actual, expected.astype(np.float64)) > 1
        return is_excused


def describe(output: str, place: str, reference: Array, difference: Difference, tolerance: Tolerance) -> str:
    """Say what is out of tolerance in these inputs, or that the reference itself is not finite for them."""
    if difference.index and reference.dtype.kind == "f" and not np.isfinite(value := reference[difference.index]):
        return (
            f"output {output!r} of the model itself is {value} on {place}: a request may hold such numbers, so give "
            "the model a finite answer for them, as by an epsilon in a division"
        )
    return (
        f"output {output!r} differs by {difference.worst:.3g} (atol {tolerance.atol:g}, rtol {tolerance.rtol:g}) "
        f"on {place}: {difference.detail}"
    )


def _with_noise(case: Case) -> Case:
    """The case with relative noise in its float inputs."""
    rng = np.random.default_rng(9)
    inputs = {
        name: (array * (1 + NOISE_SCALE * rng.standard_normal(array.shape))).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in case.inputs.items()
    }
    return replace(case, inputs=inputs)
