"""The values that a graph stores: its tensors, and the numbers in attributes of ai.onnx.ml nodes, such as trees.

A tensor is replaced in the bytes of the file, so that making a mutant takes microseconds; a tensor of the data file
keeps its bytes there. A graph with another attribute is written anew.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import onnx
from onnx import numpy_helper

from export.candidate import Candidate
from export.source import Array
from service.engine.verification.initializers import replace_values, stored_tensors, tensor_values
from service.onnx_wire import TensorInfo

MACHINE_LEARNING = "ai.onnx.ml"
# Below this number of values a tensor is a constant, a statistic or a scalar, not weights.
MIN_WEIGHTS = 4


@dataclass(frozen=True, kw_only=True)
class StoredValues:
    """One tensor or attribute. `put` makes a candidate with other values of the same shape."""

    name: str
    values: Array
    put: Callable[[Candidate, Array], Candidate]

    @cached_property
    def is_float(self) -> bool:
        return self.values.dtype.kind == "f" and bool(np.isfinite(self.values).all())

    @cached_property
    def is_weights(self) -> bool:
        return self.is_float and self.values.size >= MIN_WEIGHTS and float(self.values.std()) > 0


def stored_values(candidate: Candidate) -> list[StoredValues]:
    """Everything in the graph that can be changed."""
    tensors = [
        StoredValues(
            name=tensor.name,
            values=tensor_values(candidate.model, tensor, candidate.data),
            put=partial(_with_tensor, tensor=tensor),
        )
        for tensor in stored_tensors(candidate.model, "float32", "int64")
    ]
    return [*tensors, *_attributes(onnx.load_from_string(candidate.model).graph)]


def _attributes(graph: onnx.GraphProto) -> Iterator[StoredValues]:
    """The lists and tensors of floats in attributes. Numbers of nodes, features and labels are no values."""
    for index, node in enumerate(graph.node):
        for attribute in node.attribute if node.domain == MACHINE_LEARNING else ():
            values = _floats(attribute)
            if values.size and values.dtype.kind == "f":
                put = partial(_with_attribute, index=index, name=attribute.name)
                yield StoredValues(name=f"{node.op_type} {node.name or index}.{attribute.name}", values=values, put=put)


def _floats(attribute: onnx.AttributeProto) -> Array:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return np.array(numpy_helper.to_array(attribute.t))
    return np.array(attribute.floats, np.float32)


def _with_tensor(candidate: Candidate, values: Array, *, tensor: TensorInfo) -> Candidate:
    model, data = replace_values(candidate.model, candidate.data, tensor, values)
    return replace(candidate, model=model, data=data)


def _with_attribute(candidate: Candidate, values: Array, *, index: int, name: str) -> Candidate:
    model = onnx.load_from_string(candidate.model)
    [attribute] = [one for one in model.graph.node[index].attribute if one.name == name]
    if attribute.type == onnx.AttributeProto.TENSOR:
        dtype = numpy_helper.to_array(attribute.t).dtype
        attribute.t.CopyFrom(numpy_helper.from_array(values.astype(dtype), attribute.t.name))
    else:
        attribute.floats[:] = values.tolist()
    return replace(candidate, model=model.SerializeToString(deterministic=True))
