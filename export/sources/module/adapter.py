"""Somebody's model between the canonical tensors of its reader and of its head, as one module that can be traced."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from export.source import Array
from export.sources.module.outputs import choose, flatten
from export.spec import Output
from service.contract.tensors import Specs, from_rows


class Adapter(nn.Module):
    """Positional canonical inputs -> canonical outputs, both in the order of the graph.

    `reader` makes the model's own arguments, `head` the canonical outputs. `has_state` says that the model returns the
    state (h, c) behind its output. A model `by_position` gets its arguments in order, without their names.
    """

    def __init__(
        self,
        model: nn.Module,
        reader: nn.Module,
        head: nn.Module,
        *,
        inputs: Specs,
        output: Output,
        outputs: Sequence[str] = (),
        has_state: bool = False,
        by_position: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.reader, self.head = model, reader, head
        self.inputs, self.output, self.outputs = inputs, output, tuple(outputs)
        self.has_state, self.by_position = has_state, by_position

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named_outputs(*inputs).values())

    def named_outputs(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The canonical outputs by name. Raises ValueError if the model does not return what the head needs."""
        by_name = {spec.name: tensor for spec, tensor in zip(self.inputs, inputs, strict=True)}
        found = self.own_outputs(*inputs)
        if self.outputs:
            return self._as_they_are(found)
        named: dict[str, Tensor] = self.head(choose(found, self.output), by_name)
        if self.has_state:
            tensors = list(found.values())
            if len(tensors) < 3:
                raise ValueError(f"the model returns {len(tensors)} tensors, expected its output and the state (h, c)")
            named |= {"next_h": tensors[-2].transpose(0, 1), "next_c": tensors[-1].transpose(0, 1)}
        return named

    def own_outputs(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Everything that the model returns, by its own names or positions."""
        arguments = self.reader(*inputs)
        returned = self.model(*arguments.values()) if self.by_position else self.model(**arguments)
        found = dict(flatten(returned))
        if not found:
            raise ValueError("the model returns no tensor")
        return found

    def _as_they_are(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs under the names of the spec: the model's own names, or names for its outputs in order."""
        if set(self.outputs) <= set(found):
            return {name: found[name] for name in self.outputs}
        if len(self.outputs) != len(found):
            raise ValueError(f"[head] has {len(self.outputs)} outputs, the model returns {', '.join(found)}")
        return dict(zip(self.outputs, found.values(), strict=True))


def run_adapter(adapter: Adapter, inputs: Mapping[str, Array], dtype: torch.dtype | None = None) -> dict[str, Array]:
    """The outputs of the adapter, in the axes of the graph, for rows, whose floats are given as `dtype` if any."""
    tensors = to_tensors(adapter, inputs, dtype)
    with torch.no_grad():
        return {name: tensor.numpy() for name, tensor in adapter.named_outputs(*tensors).items()}


def to_tensors(adapter: Adapter, inputs: Mapping[str, Array], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Rows as the inputs of the adapter in its order, each in the axes of the graph."""
    arrays = [from_rows(inputs[spec.name], spec) for spec in adapter.inputs]
    # Copies, because a model may change its inputs in place.
    tensors = [torch.from_numpy(np.array(array, order="C")) for array in arrays]
    return [tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor for tensor in tensors]
