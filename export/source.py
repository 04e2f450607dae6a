"""A source: a trained model from anywhere, with what its bundle declares and what its answers are compared with.

Every way in (a run, a PyTorch module, an ONNX file, a Hugging Face folder, a Keras file) ends in one `Source`; the
gates and the writer know nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from service.contract.heads import Head
from service.contract.precision import Precision
from service.contract.readers import Reader
from service.contract.tensors import Specs
from service.manifest import Provenance, RequestLimits
from training.checkpoint import Run
from training.recipe import Split
from training.token_cases import TokenCase

Array = npt.NDArray[Any]
# Input arrays by name -> output arrays by name, for a whole batch.
Predict = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The model, its contract and its reference.

    `examples` are the test items: inputs by the canonical names of the reader, zero-padded where ragged; `targets` may
    be empty. `note` says on the card what the model was trained on, or where the examples come from. `predict` is the
    reference in float32: for a language model {"ids"} -> {"logits"} and, unless it is a run, the keys and values of all
    tokens; for all others the inputs of the graph -> its outputs. `predict_float64` is the same in float64, or None if
    the reference cannot do that. `module` has the graph's inputs and outputs as positional tensors, in order, and is
    traced for the graph and for the account of its weights; None if the graph came as a file. `run` is the training
    run, if it is one. `has_data` is false if export made the examples itself. `precision` and `parent`, the source in
    float32, are those of a variant. Golden cases are replayed as if float32 had rounding errors of `min_rounding`, and
    `atol_by_output` says what was measured in the place of `atol`.
    """

    name: str
    summary: str
    reader: Reader
    head: Head
    inputs: Specs
    outputs: Specs
    limits: RequestLimits
    examples: Split
    predict: Predict
    predict_float64: Predict | None
    module: nn.Module | None
    provenance: Provenance
    note: str
    atol: float = 1e-5
    rtol: float = 1e-4
    invariance: Literal["bitwise", "tolerance"] = "bitwise"
    control_flow: bool = False
    tokenizer: str | None = None
    tokens: tuple[TokenCase, ...] = ()
    run: Run | None = None
    has_data: bool = True
    precision: Precision | None = None
    parent: "Source | None" = None
    min_rounding: float = 0.0
    atol_by_output: Mapping[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the head; () if it has none."""
        return getattr(self.head, "labels", ())

    @property
    def reference(self) -> str:
        """What the expected outputs come from, as messages and cards call it."""
        return self.provenance.reference

    @property
    def vocabulary(self) -> int:
        """The number of token ids of a text model; 0 for others."""
        return getattr(self.reader, "vocabulary", 0)

    def item_lengths(self) -> npt.NDArray[np.int64]:
        """The number of steps of each example; ones if the examples have no steps."""
        lengths = self.examples.inputs.get("lengths")
        if lengths is not None:
            return lengths
        ids = self.examples.inputs.get("ids")
        return np.full(len(self.examples), 1 if ids is None else ids.shape[1], np.int64)
