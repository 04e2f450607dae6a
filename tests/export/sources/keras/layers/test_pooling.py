"""Pooling equals Keras' own, over windows and over all steps of a row."""

from typing import Any

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, sequential


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_windows_equal_keras(padding: str, strides: int) -> None:
    options = {"strides": strides, "padding": padding}
    assert_equal(sequential((None, None, 4), layers.MaxPooling2D(2, **options)), batches=(2,), sizes=(7, 8))
    assert_equal(sequential((9, 4), layers.MaxPooling1D(3, **options)), batches=(2,), sizes=(1,))
    assert_equal(sequential((9, 4), layers.AveragePooling1D(3, **options)), batches=(2,), sizes=(1,))
    assert_equal(sequential((9, 9, 4), layers.AveragePooling2D(3, **options)), batches=(2,), sizes=(1,))


def test_average_over_an_uneven_padding_is_refused() -> None:
    with pytest.raises(ExportError, match="Keras' backends average over such a padding differently"):
        build_twin(sequential((8, 8, 4), layers.AveragePooling2D(3, strides=2, padding="same")))


def test_average_with_padding_over_a_free_axis_is_refused() -> None:
    with pytest.raises(ExportError, match="over a free axis; use padding='valid'"):
        build_twin(sequential((None, 8, 4), layers.AveragePooling2D(3, strides=2, padding="same")))


@pytest.mark.parametrize("kind", [layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D])
@pytest.mark.parametrize("keepdims", [False, True])
def test_whole_pictures_equal_keras(kind: Any, keepdims: bool) -> None:
    assert_equal(sequential((None, None, 3), kind(keepdims=keepdims)), batches=(2,))


@pytest.mark.parametrize("kind", [layers.GlobalMaxPooling1D, layers.GlobalAveragePooling1D])
@pytest.mark.parametrize("parts", [[], [layers.Masking()]], ids=["plain", "masked"])
def test_whole_rows_equal_keras(kind: Any, parts: list[Any]) -> None:
    for keepdims in (False, True):
        model = sequential((None, 4), *parts, layers.Dense(3), kind(keepdims=keepdims))
        assert_equal(model, sizes=(5,))
        assert_equal_rows(model)


def test_windows_over_free_steps_are_refused() -> None:
    with pytest.raises(ExportError, match="mixes the steps of a series of free length"):
        build_twin(sequential((None, 4), layers.MaxPooling1D(2)), series=0)
