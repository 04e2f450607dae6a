"""Check on this machine that up to MAX_ROWS golden rows give the same bits alone as in their batch.

Kernels differ between processors, so what export certified as bitwise equal on one processor is checked again on each
machine that serves. The certificate applies to the CPU; sessions on a GPU are not checked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from service.bundle import GoldenCase, Tensors
from service.contract.heads import LanguageModelHead
from service.engine.sessions.session import Session
from service.engine.verification.golden_inputs import complete_inputs, num_new_steps
from service.engine.verification.parity import compare
from service.errors import BundleError
from service.manifest import Manifest

MAX_ROWS = 8  # over all cases


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One output of one golden row whose bits differ alone and in the batch."""

    case: int
    row: int
    output: str
    difference: float


def check_batch_invariance(session: Session, cases: Mapping[int, GoldenCase]) -> None:
    """Check the certificate on this CPU; raises BundleError with the case, output and row of the first mismatch."""
    manifest = session.manifest
    if manifest.invariance.level != "bitwise" or session.device != "cpu":
        return
    for mismatch in find_mismatches(session, cases):
        raise BundleError(
            f"{manifest.name}/{manifest.version}: golden case {mismatch.case}: output {mismatch.output!r} of row "
            f"{mismatch.row} differs by {mismatch.difference:.3g} when the row is alone; the manifest says its bits "
            f"never depend on the batch (strategy {manifest.invariance.strategy!r}). Kernels differ between "
            f"processors: export the model again on this processor (`python -m export runs/{manifest.name}`), then "
            "check that it loads on the others"
        )


def find_mismatches(session: Session, cases: Mapping[int, GoldenCase]) -> Iterator[Mismatch]:
    """Yield every output of the first MAX_ROWS golden rows that depends on whether the row is alone."""
    rows_left = MAX_ROWS
    for number, case in cases.items():
        if not rows_left:
            return
        num_rows = len(next(iter(case.inputs.values())))
        # A language model batches decode steps only; the prefill of each prompt is a run of its own.
        is_prefill = isinstance(session.manifest.head, LanguageModelHead) and num_new_steps(case.inputs) > 1
        if num_rows < 2 or is_prefill:
            continue
        inputs = complete_inputs(session, case.inputs)
        batched = session.run(inputs)
        for row in range(min(num_rows, rows_left)):
            rows_left -= 1
            for name, expected in session.run(_single_row(session.manifest, inputs, row)).items():
                actual = unpad(batched[name][row : row + 1], expected)
                if not has_same_bits(actual, expected):
                    difference = compare(expected, actual, atol=0, rtol=0).worst
                    yield Mismatch(case=number, row=row, output=name, difference=difference)


def has_same_bits(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    """Compare two arrays of one dtype bit by bit, and texts as texts."""
    if actual.dtype.hasobject:
        return actual.shape == expected.shape and actual.tolist() == expected.tolist()
    return actual.tobytes() == expected.tobytes()


def unpad(value: npt.NDArray[Any], like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Cut `value` to the shape of `like`: remove the steps that only padding has added."""
    return value[tuple(slice(size) for size in like.shape)]


def _single_row(manifest: Manifest, inputs: Tensors, row: int) -> Tensors:
    """Return the inputs of one row without padding, as a request with this row alone would send them."""
    length = inputs["lengths"][row] if manifest.is_ragged else None
    has_steps = {spec.name for spec in manifest.inputs if spec.shape[1:2] == ("steps",)}
    single = {name: value[row : row + 1] for name, value in inputs.items()}
    return {name: value[:, :length] if name in has_steps else value for name, value in single.items()}
