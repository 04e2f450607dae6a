"""Checks the outputs of a run: NaN or infinity is never an answer.

Invariant: a row passes if every number of its float outputs is finite, apart from steps beyond its length, which are
undefined. The logits of a language model may be -inf, which excludes a token, but every step has a finite one. NaN that
becomes a whole number, such as a pixel, is invisible: the float outputs are computed beside an output of whole numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.contract.tensors import FLOATS
from service.manifest import Manifest

Array = npt.NDArray[Any]


class NotFiniteOutputError(ArithmeticError):
    """The model computed NaN or infinity for these rows of a slice; `outputs` names the first such output of each."""

    def __init__(self, outputs: Mapping[int, str]) -> None:
        super().__init__(f"not finite: {outputs}")
        self.outputs = outputs


class OutputCheck:
    def __init__(self, manifest: Manifest) -> None:
        self._floats = frozenset(spec.name for spec in manifest.outputs if spec.dtype in FLOATS)
        self._has_others = len(self._floats) < len(manifest.outputs)
        self._padded = frozenset(
            spec.name for spec in manifest.outputs if manifest.is_ragged and spec.shape[1:2] == ("steps",)
        )
        self._masked = frozenset({"logits"} if isinstance(manifest.head, LanguageModelHead) else ())

    def computed(self, names: Sequence[str] | None) -> Sequence[str] | None:
        """Return the outputs to compute for a request of these: with one of whole numbers, all float outputs too."""
        if not self._has_others or names is None or self._floats.issuperset(names):
            return names
        return tuple(dict.fromkeys((*names, *sorted(self._floats))))

    def bad_rows(self, outputs: Mapping[str, Array], inputs: Tensors) -> dict[int, str]:
        """Map each row of the batch that has NaN or infinity to the first of these outputs that holds one."""
        bad: dict[int, str] = {}
        for name, value in outputs.items():
            # The fast check: a finite sum of squares proves that all numbers are finite. The converse does not hold.
            if name in self._floats and not math.isfinite(np.vdot(value, value)):
                bad = dict.fromkeys(np.flatnonzero(self._is_bad(name, value, inputs)).tolist(), name) | bad
        return bad

    def _is_bad(self, name: str, value: Array, inputs: Tensors) -> npt.NDArray[np.bool_]:
        if name in self._masked:
            # The maximum is NaN or +inf if any number is, and -inf if all are.
            value = value.max(axis=-1)
        is_bad: npt.NDArray[np.bool_] = ~np.isfinite(value)
        if name in self._padded:
            is_bad[np.arange(value.shape[1]) >= inputs["lengths"][:, None]] = False
        return np.asarray(is_bad.reshape(len(value), -1).any(axis=1))
