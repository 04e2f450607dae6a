"""The precision of a variant: its weights or its products have fewer bits than those of its model in float32."""

from typing import Literal

from pydantic import Field

from service.contract.tensors import FrozenModel

PrecisionName = Literal["tf32", "fp16", "int8", "int4"]
# Precisions that round the inputs of products to 8 bits.
INTEGERS: frozenset[PrecisionName] = frozenset({"int8", "int4"})
# The widest tolerance of an output, and that of a model which rounds its activations to 8 bits: between two correct
# kernels, a number on a rounding edge differs by a whole step, and the layers behind it by what that makes of them.
MAX_TOLERANCE, MAX_INTEGER_TOLERANCE = 0.01, 0.1


class Precision(FrozenModel):
    """The precision of a variant, and what it loses against its parent, measured on `items` examples.

    `parent` is the version in float32, as NAME/VERSION. `agreement` is the share of equal decisions; of outputs that
    decide nothing, 1 less their relative difference. `metric` is empty if the examples have no targets.
    """

    kind: PrecisionName
    parent: str = Field(pattern="^[a-z0-9-]{1,64}/[0-9a-f]{12}$")
    items: int = Field(ge=0)
    agreement: float = Field(ge=0, le=1)
    metric: str = ""
    parent_score: float = 0.0
    score: float = 0.0
