"""Golden cases become rows of one payload, wherever the graph has its batch axis."""

from pathlib import Path

import numpy as np
import pytest

from export.sources.onnx_file.goldens import Golden, Goldens
from export.sources.onnx_file.items import case_rows, payload_of
from export.spec import Spec, parse_spec


def spec_of(*shape: int | str, **limits: object) -> Spec:
    inputs = [{"name": "x", "dtype": "float32", "shape": list(shape)}]
    content = {"reader": {"kind": "tensors", "inputs": inputs}, "head": {"kind": "tensors"}, "limits": limits}
    return parse_spec(content, Path("spec.toml"))


def goldens_of(*arrays: np.ndarray, targets: tuple[np.ndarray | None, ...] = ()) -> Goldens:
    cases = (
        Golden(number=i, inputs={"x": array.astype(np.float32)}, outputs={}, targets=targets[i] if targets else None)
        for i, array in enumerate(arrays)
    )
    return Goldens(path=Path("golden.npz"), names=("x",), cases=tuple(cases))


def test_rows_come_first_and_are_padded() -> None:
    first, second = np.arange(30).reshape(5, 2, 3), np.arange(24).reshape(4, 3, 2)
    spec = spec_of("time", "batch", "side", axes={"time": [1, 9], "side": [1, 9]})
    payload = payload_of(spec, goldens_of(first, second))
    items = payload.split.inputs["x"]
    assert items.shape == (5, 5, 3)
    assert payload.split.inputs["time"].tolist() == [5, 5, 4, 4, 4]
    np.testing.assert_array_equal(items[1], first[:, 1])
    np.testing.assert_array_equal(items[3, :4, :2], second[:, 1])
    rows = [arrays["x"] for arrays in case_rows(payload, [2, 3])]
    np.testing.assert_array_equal(rows[0], first.swapaxes(0, 1))
    np.testing.assert_array_equal(rows[1], second.swapaxes(0, 1))


def test_case_without_a_batch_axis_is_one_row() -> None:
    payload = payload_of(spec_of(2, 3), goldens_of(np.zeros((2, 3)), np.ones((2, 3))))
    assert payload.split.inputs["x"].shape == (2, 2, 3)


def test_targets_count_if_every_case_has_them() -> None:
    x = np.zeros((4, 3))
    spec = spec_of("batch", 3)
    with pytest.raises(ValueError, match="holds 4 x, 3 targets in case 0; expected one for each item"):
        payload_of(spec, goldens_of(x, targets=(np.zeros(3),)))
    assert not len(payload_of(spec, goldens_of(x, x, targets=(np.zeros(4), None))).split.targets)
