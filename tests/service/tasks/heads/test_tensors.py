"""Outputs are split along their batch axis, wherever it is."""

import numpy as np
import pytest

from service.contract.tensors import Dtype, TensorSpec
from service.engine.sessions.model import Model
from service.tasks.heads.tensors import answers, outputs, split_rows
from service.tasks.readers.payload import Group


def test_every_output_of_a_row_is_in_its_answer(pair_models: dict[str, Model]) -> None:
    manifest = pair_models["tiny-tensors"].manifest
    assert outputs(manifest) == ["moved", "doubled"]
    computed = {"moved": np.array([[1.5, 2], [3, 4]], np.float32), "doubled": np.array([6, -8])}
    assert answers(manifest, computed, Group({}, range(2)), {}) == [
        {"outputs": {"moved": [1.5, 2], "doubled": 6}},
        {"outputs": {"moved": [3, 4], "doubled": -8}},
    ]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_batch_axis_may_be_anywhere(axis: int) -> None:
    output = np.arange(24).reshape(2, 3, 4)
    shape = tuple("batch" if i == axis else size for i, size in enumerate(output.shape))
    rows = split_rows(output, TensorSpec(name="y", dtype="int64", shape=shape), num_rows=output.shape[axis])
    assert len(rows) == output.shape[axis]
    assert all(row == output.take(i, axis=axis).tolist() for i, row in enumerate(rows))


def test_an_output_without_a_batch_axis_belongs_to_every_row() -> None:
    spec = TensorSpec(name="y", dtype="float32", shape=(2,))
    assert split_rows(np.array([1, 2]), spec, num_rows=3) == [[1, 2]] * 3


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("bool", [True, False]), ("string", ["a", "b"]), ("uint64", [2**64 - 1, 0]), ("float16", [0.5, 1])],
)
def test_outputs_of_every_dtype_become_json_values(dtype: Dtype, values: list[object]) -> None:
    output = np.array(values, object if dtype == "string" else dtype)
    rows = split_rows(output, TensorSpec(name="y", dtype=dtype, shape=("batch",)), num_rows=2)
    assert rows == values
    assert list(map(type, rows)) == [float if dtype == "float16" else type(value) for value in values]


def test_steps_beyond_the_length_of_a_row_are_zero(pair_models: dict[str, Model]) -> None:
    manifest = pair_models["tiny-steps"].manifest
    computed = {"probabilities": np.ones((2, 2, 3), np.float32)}
    first, second = answers(manifest, computed, Group({"lengths": np.array([2, 1])}, range(2)), {})
    assert first["outputs"]["probabilities"] == [[1] * 3] * 2
    assert second["outputs"]["probabilities"] == [[1] * 3, [0] * 3]
