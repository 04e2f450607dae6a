"""A structured input: one row of a batch, with a name for messages."""

from dataclasses import dataclass

from service.bundle import Tensors


@dataclass(frozen=True, kw_only=True)
class Row:
    """`inputs` have no batch axis. An extreme row has values that no test item has."""

    name: str
    inputs: Tensors
    is_extreme: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Rows with equal keys may share a batch."""
        return self.is_extreme, *(array.shape for array in self.inputs.values())
