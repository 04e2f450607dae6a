"""Outputs are split along their batch axis, wherever it is."""

import numpy as np
import pytest

from service.contract.tensors import Dtype, TensorSpec
from service.engine.sessions.model import Model
from service.tasks.heads.tensors import answers, outputs
from service.tasks.readers.payload import Group


def test_every_output_of_a_row_is_in_its_answer(pair_models: dict[str, Model]) -> None:
    manifest = pair_models["tiny-tensors"].manifest
    assert outputs(manifest) == ["moved", "doubled"]
    computed = {"moved": np.array([[1.5, 2], [3, 4]], np.float32), "doubled": np.array([6, -8])}
    assert answers(manifest, computed, Group({}, range(2)), {}) == [
        {"outputs": {"moved": [1.5, 2], "doubled": 6}},
        {"outputs": {"moved": [3, 4], "doubled": -8}},
    ]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("bool", [True, False]), ("string", ["a", "b"]), ("uint64", [2**64 - 1, 0]), ("float16", [0.5, 1])],
)
def test_outputs_of_every_dtype_become_json_values(
    dtype: Dtype, values: list[object], *, pair_models: dict[str, Model]
) -> None:
    spec = TensorSpec(name="y", dtype=dtype, shape=("batch",))
    manifest = pair_models["tiny-tensors"].manifest.model_copy(update={"outputs": (spec,)})
    rows = answers(manifest, {"y": np.array(values, spec.numpy_dtype)}, Group({}, range(2)), {})
    assert rows == [{"outputs": {"y": value}} for value in values]
    kinds = [type(row["outputs"]["y"]) for row in rows]
    assert kinds == [float if dtype == "float16" else type(value) for value in values]


def test_steps_beyond_the_length_of_a_row_are_zero(pair_models: dict[str, Model]) -> None:
    manifest = pair_models["tiny-steps"].manifest
    computed = {"probabilities": np.ones((2, 2, 3), np.float32)}
    first, second = answers(manifest, computed, Group({"lengths": np.array([2, 1])}, range(2)), {})
    assert first["outputs"]["probabilities"] == [[1] * 3] * 2
    assert second["outputs"]["probabilities"] == [[1] * 3, [0] * 3]
