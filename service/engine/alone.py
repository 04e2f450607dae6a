"""Whether a certificate of invariance holds on the machine that serves: golden rows alone, and in their batch.

Kernels differ between processors, so what export certified bitwise on one is looked at again on another. The
certificate is of the CPU: a session on a GPU is not held to it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import GoldenCase, LanguageModel, Manifest, Tensors
from service.engine.session import Session
from service.errors import BundleError

MOST_ROWS = 8  # of all cases


def check_alone(session: Session, cases: Mapping[int, GoldenCase]) -> None:
    """Raises BundleError that names the output, case and row if a row's bits depend on its batch."""
    manifest = session.manifest
    if manifest.invariance.level != "bitwise" or session.device != "cpu":
        return
    left = MOST_ROWS
    for number, case in cases.items():
        num_rows = len(next(iter(case.inputs.values())))
        if num_rows < 2 or not _is_batched(manifest, case.inputs):
            continue
        together = session.run(case.inputs)
        for row in range(min(num_rows, left)):
            left -= 1
            for name, value in session.run(_row(manifest, case.inputs, row)).items():
                given = _like(together[name][row : row + 1], value)
                if given.tobytes() != value.tobytes():
                    worst = np.abs(given.astype(np.float64) - value).max()
                    raise BundleError(
                        f"{manifest.name}/{manifest.version}: golden case {number}: output {name!r} of row {row} moves "
                        f"by {worst:.3g} when the row is alone; the manifest says its bits never depend on the batch "
                        f"(strategy {manifest.invariance.strategy!r})"
                    )


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


def _like(value: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Without the steps that only the padding of a batch added."""
    return value[tuple(slice(size) for size in other.shape)]
