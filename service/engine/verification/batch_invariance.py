"""Whether a certificate of invariance holds on the machine that serves: golden rows alone, and in their batch.

Kernels differ between processors, so what export certified bitwise on one is looked at again on another. The
certificate is of the CPU: a session on a GPU is not held to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import GoldenCase, LanguageModel, Manifest, Tensors
from service.engine.sessions.session import Session
from service.errors import BundleError

MOST_ROWS = 8  # of all cases


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A golden row's output that is not the same bits alone and in its batch."""

    case: int
    row: int
    output: str
    difference: float


def check_alone(session: Session, cases: Mapping[int, GoldenCase]) -> None:
    """Raises BundleError that names the output, case and row if a row's bits depend on its batch."""
    manifest = session.manifest
    if manifest.invariance.level != "bitwise" or session.device != "cpu":
        return
    for moved in moves(session, cases):
        raise BundleError(
            f"{manifest.name}/{manifest.version}: golden case {moved.case}: output {moved.output!r} of row {moved.row} "
            f"moves by {moved.difference:.3g} when the row is alone; the manifest says its bits never depend on the "
            f"batch (strategy {manifest.invariance.strategy!r}). Kernels differ between processors: run "
            f"`python -m export runs/{manifest.name}` on this one; the others check its strategy when they load it"
        )


def moves(session: Session, cases: Mapping[int, GoldenCase]) -> Iterator[Moved]:
    """Every output of a golden row that depends on whether the row is alone."""
    left = MOST_ROWS
    for number, case in cases.items():
        num_rows = len(next(iter(case.inputs.values())))
        if num_rows < 2 or not _is_batched(session.manifest, case.inputs):
            continue
        together = session.run(case.inputs)
        for row in range(min(num_rows, left)):
            left -= 1
            for name, value in session.run(_row(session.manifest, case.inputs, row)).items():
                given = trimmed(together[name][row : row + 1], value)
                if given.tobytes() != value.tobytes():
                    difference = float(np.abs(given.astype(np.float64) - value).max())
                    yield Moved(case=number, row=row, output=name, difference=difference)


def _is_batched(manifest: Manifest, inputs: Tensors) -> bool:
    """A language model reads every prompt alone: only its single steps have batches."""
    return not isinstance(manifest.parameters, LanguageModel) or inputs["ids"].shape[1] == 1


def _row(manifest: Manifest, inputs: Tensors, row: int) -> Tensors:
    """One row as if it had come alone: no wider than it is long."""
    alone = {name: value[row : row + 1] for name, value in inputs.items()}
    if "lengths" not in inputs:
        return alone
    length = int(inputs["lengths"][row])
    ragged = {spec.name for spec in manifest.inputs if spec.shape[1:2] == ("steps",)}
    return {name: value[:, :length] if name in ragged else value for name, value in alone.items()}


def trimmed(value: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Without the steps that only the padding of a batch added."""
    return value[tuple(slice(size) for size in other.shape)]
