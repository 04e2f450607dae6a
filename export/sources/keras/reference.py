"""The reference of a Keras model: Keras itself, each row alone at its own length.

Rows of equal length are computed together, because Keras computes each row of a batch alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.sources.keras.twin import graph_of
from training.keras_models.backend import import_keras

Array = npt.NDArray[Any]


def run_keras(model: Any, inputs: Sequence[Array], lengths_B: Array | None = None, series: int = 0) -> list[Array]:
    """The model's outputs for these inputs, in order.

    With `lengths_B`, rows of input number `series` have these lengths; an output with as many steps is zero after them.
    """
    if lengths_B is None:
        return _call(model, inputs)
    longest = inputs[series].shape[1]
    outputs: list[Array] = []
    for length in np.unique(lengths_B):
        rows = np.flatnonzero(lengths_B == length)
        cut = [array[rows, :length] if position == series else array[rows] for position, array in enumerate(inputs)]
        results = _call(model, cut)
        if not outputs:
            outputs = [
                _empty_results(result, len(lengths_B), longest, spec)
                for result, spec in zip(results, model.outputs, strict=True)
            ]
        for output, result, spec in zip(outputs, results, model.outputs, strict=True):
            if _has_steps(spec):
                output[rows, :length] = result
            else:
                output[rows] = result
    return outputs


def _call(model: Any, inputs: Sequence[Array]) -> list[Array]:
    keras = import_keras()
    with keras.device("cpu"), torch.no_grad():
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
        results = model(keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, tensors), training=False)
    return [result.numpy() for result in keras.tree.flatten(results)]


def _has_steps(spec: Any) -> bool:
    return len(spec.shape) > 1 and spec.shape[1] is None


def _empty_results(result: Array, num_rows: int, longest: int, spec: Any) -> Array:
    """Zeros for the results of all rows."""
    shape = (num_rows, longest, *result.shape[2:]) if _has_steps(spec) else (num_rows, *result.shape[1:])
    return np.zeros(shape, result.dtype)
