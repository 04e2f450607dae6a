"""Every declared tensor is read by its name, with its dtype, its axes and its batch axis."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.bundle import open_bundle
from service.contract.tensors import Dtype
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.manifest import ValueRange
from service.tasks.readers.tensors import read, read_item, read_tensors
from tests.service.tensor_bundles import DTYPES, VALUES, write_echo, write_second_axis, write_without_batch

TENSORS = {"points": [[0.5, -1], [2, 3]], "weights": [3, -4]}


@pytest.fixture(scope="module")
def model(pair_models: dict[str, Model]) -> Model:
    return pair_models["tiny-tensors"]


def test_tensors_have_their_dtypes_and_are_one_group(model: Model, runner: Runner) -> None:
    payload = asyncio.run(read(model, runner, {"tensors": TENSORS}, runner.new_context()))
    [group] = payload.groups
    assert {name: (value.dtype.name, value.tolist()) for name, value in group.inputs.items()} == {
        "points": ("float32", [[0.5, -1], [2, 3]]),
        "weights": ("int64", [3, -4]),
    }
    assert list(group.items) == [0, 1]
    assert not payload.is_list


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ([], "/tensors", "expected an object with 'points': float32 [batch, 2], 'weights': int64"),
        ({**TENSORS, "a/b": 1}, "/tensors/a~1b", "unknown tensor; tiny-tensors reads 'points': float32 [batch, 2]"),
        ({"points": [[1, 2]]}, "/tensors/weights", "this tensor is required: expected int64 [batch]"),
        ({**TENSORS, "points": [[1, 2, 3]]}, "/tensors/points", "expected shape [batch, 2], got [1, 3]"),
        ({**TENSORS, "points": [[1, 2]]}, "/tensors/weights", "expected batch = 1 as in 'points', got 2"),
        ({**TENSORS, "weights": [1, 2.5]}, "/tensors/weights/1", "expected a whole number of"),
        ({**TENSORS, "points": [[1, "x"], [1, 2]]}, "/tensors/points/0/1", "expected a number that is finite"),
        ({"points": [[1, 2]] * 9, "weights": [1] * 9}, "/tensors/points", "1 to 8"),
    ],
)  # fmt: skip
def test_an_invalid_tensor_is_named(given: Any, pointer: str, detail: str, *, model: Model) -> None:
    with pytest.raises(EkibenError) as caught:
        read_tensors(given, model.manifest, "/tensors")
    assert caught.value.faults[0].pointer == pointer
    assert detail in caught.value.faults[0].detail


def test_numbers_outside_the_domain_are_refused(model: Model) -> None:
    manifest = model.manifest.model_copy(update={"domain": {"points": ValueRange(low=-1, high=2)}})
    with pytest.raises(EkibenError, match=r"^/tensors/points: expected -1.0 to 2.0, got 3.0 at \[1, 1\]$"):
        read_tensors(TENSORS, manifest, "/tensors")


def test_an_item_lacks_the_batch_axis(model: Model) -> None:
    tensors = read_item({"points": [0.5, 1], "weights": 3}, model.manifest, "")
    assert {name: value.tolist() for name, value in tensors.items()} == {"points": [[0.5, 1]], "weights": [3]}


def test_a_batch_axis_inside_comes_first(tmp_path: Path) -> None:
    manifest = open_bundle(write_second_axis(tmp_path)).manifest
    times = [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]]
    rows = read_tensors({"x": times, "add": [1, 2, 3]}, manifest, "")
    assert rows["x"].tolist() == [[[1, 2], [7, 8]], [[3, 4], [9, 10]], [[5, 6], [11, 12]]]
    assert rows["x"].flags.c_contiguous
    item = read_item({"x": [[1, 2], [7, 8]], "add": 1}, manifest, "")
    assert {name: value.tolist() for name, value in item.items()} == {"x": [[[1, 2], [7, 8]]], "add": [1]}
    for tensors in ({"x": [[[1, 2]]] * 6, "add": [1]}, {"x": [[[1, 2], [3, 4]]], "add": [1]}):
        with pytest.raises(EkibenError):
            read_tensors(tensors, manifest, "")


def test_a_model_without_a_batch_axis_has_one_row(tmp_path: Path, runner: Runner) -> None:
    manifest = open_bundle(write_without_batch(tmp_path)).manifest
    given = {"x": [[1, 2], [3, 4]]}
    for read_any in (read_tensors, read_item):
        assert read_any(given, manifest, "")["x"].tolist() == [[[1, 2], [3, 4]]]
    model = SimpleNamespace(manifest=manifest)
    [group] = asyncio.run(read(model, runner, {"tensors": given}, runner.new_context())).groups  # type: ignore[arg-type]
    assert list(group.items) == [0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read(dtype: Dtype, *, tmp_path: Path) -> None:
    manifest = open_bundle(write_echo(tmp_path, dtype)).manifest
    values = np.array([VALUES[dtype]], manifest.inputs[0].numpy_dtype)
    rows = read_tensors({"x": values.tolist()}, manifest, "")
    assert rows["x"].dtype == values.dtype
    assert rows["x"].tolist() == values.tolist()


@pytest.mark.parametrize("given", [None, 3, {"points": 1}, {"other": [1]}])
def test_an_invalid_item_is_refused(given: Any, *, model: Model) -> None:
    with pytest.raises(EkibenError):
        read_item(given, model.manifest, "/3")


def test_a_request_has_tensors(model: Model, runner: Runner) -> None:
    with pytest.raises(EkibenError, match="/tensors: this field is required: tiny-tensors reads 'points'"):
        asyncio.run(read(model, runner, {"tensors": None}, runner.new_context()))
