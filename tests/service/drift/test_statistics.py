"""Statistics equal what numpy computes for each item by itself, in float64."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract.readers import CategoryColumn, NumberColumn, TableReader
from service.contract.tensors import TensorSpec, tensor
from service.drift.statistics import (
    MAX_GRID_PIXELS,
    image_values,
    series_values,
    statistic_names,
    table_values,
    tensor_values,
    text_values,
)
from service.engine.sessions.model import Model


def test_a_small_picture_is_measured_whole() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 9, 3), dtype=np.uint8)
    values = image_values(images)
    assert list(values) == ["brightness", "contrast", "red", "green", "blue"]
    for i, image in enumerate(images.astype(np.float64)):
        assert values["brightness"][i] == pytest.approx(image.mean())
        assert values["contrast"][i] == pytest.approx(image.std())
        assert [values[name][i] for name in ("red", "green", "blue")] == pytest.approx(image.mean(axis=(0, 1)).tolist())


@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (224, 300), (1, 9000), (5000, 2)])
def test_a_large_picture_is_measured_on_a_grid(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    grids = [image[::step, ::step] for step in range(1, 200)]
    grid = next(grid for grid in grids if grid.size <= MAX_GRID_PIXELS)
    values = image_values(image[None])
    assert values["brightness"][0] == pytest.approx(grid.mean())
    assert values["contrast"][0] == pytest.approx(grid.std())


def test_white_pictures_have_no_contrast() -> None:
    values = image_values(np.full((3, 16, 16), 255, np.uint8))
    assert values["brightness"].tolist() == [255] * 3
    assert values["contrast"].tolist() == [0] * 3


def test_pictures_of_several_sizes_are_measured_each() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (size, 10, 3), dtype=np.uint8) for size in (4, 30, 7)]
    values = image_values(images)
    for i, image in enumerate(images):
        assert {name: value[i] for name, value in values.items()} == {
            name: value[0] for name, value in image_values(image[None]).items()
        }
    assert image_values([]) == {}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.floats(-1e4, 1e4))
def test_series_are_measured_by_channel(lengths: list[int], offset: float) -> None:
    rng = np.random.default_rng(len(lengths))
    series = [(rng.normal(size=(length, 3)) + offset).astype(np.float32) for length in lengths]
    values = series_values(series)
    assert values["length"].tolist() == lengths
    for i, one in enumerate(series):
        exact = one.astype(np.float64)
        for channel in range(3):
            assert values[f"mean of channel {channel}"][i] == pytest.approx(exact[:, channel].mean())
            assert values[f"deviation of channel {channel}"][i] == pytest.approx(exact[:, channel].std(), abs=0.02)
            assert values[f"minimum of channel {channel}"][i] == one[:, channel].min()
            assert values[f"maximum of channel {channel}"][i] == one[:, channel].max()


def test_a_constant_series_has_no_deviation() -> None:
    values = series_values([np.full((7, 1), 0.1, np.float32), np.full((3, 1), 1e6 + 0.1, np.float32)])
    assert values["deviation of channel 0"].tolist() == [0, 0]
    assert series_values([]) == {}


def test_texts_are_measured_by_tokens() -> None:
    values = text_values([[1, 0, 0, 4], [2]], ["some words", "é"], unknown_id=0)
    assert {name: value.tolist() for name, value in values.items()} == {
        "length": [4, 1],
        "share of unknown tokens": [0.5, 0],
        "characters a token": [2.5, 1],
    }
    assert list(text_values([[1]], (), unknown_id=None)) == ["length"]


def test_columns_of_a_table_are_measured_as_they_are() -> None:
    reader = TableReader(
        columns=(
            CategoryColumn(name="city", values=("Rome", "Kyoto")),
            NumberColumn(name="age"),
            NumberColumn(name="sum"),
        )
    )
    inputs = {"numbers": np.array([[1, 2], [3, 4]], np.float32), "categories": np.array([[1], [0]])}
    values = table_values(reader, inputs)
    assert {name: value.tolist() for name, value in values.items()} == {"age": [1, 3], "sum": [2, 4], "city": [1, 0]}
    assert table_values(reader, {}) == {}


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (tensor("float32", "x", "batch", 3), [1, 2, 4], {"x[0]": 1, "x[1]": 2, "x[2]": 4}),
        (tensor("float64", "x", "batch"), 1e300, {"x": 1e100}),
        (tensor("int64", "x", "batch", "steps"), [1, 2, 3], {"mean of x": 2, "deviation of x": np.sqrt(2 / 3)}),
        (tensor("bool", "x", "batch", "steps"), [True, False], {"mean of x": 0.5, "deviation of x": 0.5}),
        (tensor("uint8", "x", "batch", 65), [3] * 65, {"mean of x": 3, "deviation of x": 0}),
        (tensor("string", "x", "batch", 2), ["ab", "駅"], {"characters of x": 3}),
    ],
)
def test_tensors_are_measured_by_their_size(spec: TensorSpec, value: Any, expected: dict[str, float]) -> None:
    row = {"x": np.array([value], object if spec.dtype == "string" else spec.numpy_dtype)}
    values = tensor_values([spec], [row, row])
    assert {name: found.tolist() for name, found in values.items()} == {
        name: pytest.approx([number] * 2) for name, number in expected.items()
    }
    assert tensor_values([spec], []) == {}


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("image-classifier", ("brightness", "contrast")),
        ("text-classifier", ("length", "share of unknown tokens", "characters a token")),
        ("series-tagger", tuple(series_values([np.zeros((1, 2), np.float32)]))),
        ("language-model", ()),
        ("image-generator", ()),
    ],
)
def test_a_model_has_the_statistics_of_its_reader(
    family: str, names: tuple[str, ...], models: dict[str, Model]
) -> None:
    assert statistic_names(models[family].manifest) == names
