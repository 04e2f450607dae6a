"""Comparison of a twin with Keras itself, for models that tests make."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import torch

from export.sources.keras.reference import run_keras
from export.sources.keras.twin import build_twin, run_twin

Array = npt.NDArray[Any]
MAX_DIFFERENCE = 1e-6


def sequential(shape: Sequence[int | None], *parts: Any, dtype: str = "float32") -> Any:
    """A model of these layers, with weights that are no zeros and no ones."""
    return randomized(keras.Sequential([keras.Input(tuple(shape), dtype=dtype), *parts]))


def randomized(model: Any) -> Any:
    """The model with random weights everywhere, biases and statistics included."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed_generator" in variable.path:
            continue
        values = rng.normal(0, 0.5, variable.shape)
        is_variance = "variance" in variable.path
        variable.assign((np.abs(values) + 0.1 if is_variance else values).astype("float32"))
    return model


def draw(model: Any, batch: int, *, size: int = 5, seed: int = 0) -> list[Array]:
    """Random inputs; free axes have `size` elements, ids are below 7, some steps of a series are zero."""
    rng, inputs = np.random.default_rng(seed), []
    for tensor in model.inputs:
        shape = [batch, *(axis or size for axis in tensor.shape[1:])]
        if tensor.dtype.startswith("int"):
            inputs.append(rng.integers(0, 7, shape).astype(tensor.dtype))
        elif tensor.dtype == "uint8":
            inputs.append(rng.integers(0, 256, shape, dtype=np.uint8))
        else:
            array = rng.normal(0, 1, shape).astype(np.float32)
            if len(shape) == 3:
                array[rng.random(shape[:2]) < 0.3] = 0
            inputs.append(array)
    return inputs


def assert_equal(
    model: Any, *, batches: Sequence[int] = (1, 3), sizes: Sequence[int] = (5, 8), scale: float = 1.0
) -> None:
    """The twin equals Keras on whole rows, and, if the first input is a series, on rows of their own lengths."""
    for batch in batches:
        for size in sizes:
            inputs = [array if array.dtype.kind in "iu" else array * scale for array in draw(model, batch, size=size)]
            _compare(build_twin(model), model, inputs, None)


def assert_equal_rows(model: Any, *, lengths: Sequence[int] = (4, 1, 7, 2, 7)) -> None:
    """The twin on padded rows equals Keras on each row alone; what stands in the padding changes nothing."""
    lengths_B = np.array(lengths)
    inputs = draw(model, len(lengths_B), size=int(lengths_B.max()))
    for row, length in enumerate(lengths_B):
        padding = inputs[0][row, length:]
        padding[...] = 5 if padding.dtype.kind in "iu" else 1e3
    _compare(build_twin(model, series=0), model, inputs, lengths_B)


def _compare(twin: Any, model: Any, inputs: list[Array], lengths_B: Array | None) -> None:
    expected = run_keras(model, inputs, lengths_B)
    tensors = [torch.from_numpy(array) for array in inputs]
    with torch.no_grad():
        actual = run_twin(twin, tensors, None if lengths_B is None else torch.from_numpy(lengths_B))
    assert len(actual) == len(expected)
    for tensor, array, spec in zip(actual, expected, model.outputs, strict=True):
        result = tensor.numpy()
        assert result.shape == array.shape
        if lengths_B is not None and len(spec.shape) > 1 and spec.shape[1] is None:
            result = np.stack(
                [
                    np.where(np.arange(len(row))[(..., *[None] * (row.ndim - 1))] < n, row, 0)
                    for row, n in zip(result, lengths_B, strict=True)
                ]
            )
        scale = max(1.0, float(np.abs(array).max()))
        np.testing.assert_allclose(result, array, atol=MAX_DIFFERENCE * scale, rtol=0)
