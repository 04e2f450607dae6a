"""Modules from outside, as sources with no more than what tracing needs."""

import numpy as np
from torch import nn

from export.source import Source
from service.contract.heads import TensorsHead
from service.contract.readers import TensorsReader
from service.contract.tensors import Specs
from service.manifest import AxisRange, Provenance, RequestLimits
from training.recipe import Split

PROVENANCE = Provenance(
    recipe="module", commit="unknown", seed=0, steps=0, dataset="drawn", data={}, metrics={}, versions={}, opset=20
)


def module_source(
    module: nn.Module, *, inputs: Specs, outputs: Specs = (), axes: dict[str, AxisRange] | None = None
) -> Source:
    """The module with these tensors; nothing but its trace is asked for."""
    return Source(
        name="module",
        summary="A module.",
        reader=TensorsReader(),
        head=TensorsHead(),
        inputs=inputs,
        outputs=outputs,
        limits=RequestLimits(max_items=8, max_steps=32, axes=axes or {}),
        examples=Split(inputs={}, targets=np.zeros(0, np.int64)),
        predict=dict,
        predict_float64=None,
        module=module.eval(),
        provenance=PROVENANCE,
        note="",
    )
