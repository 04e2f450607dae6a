"""Reading .keras files: Keras' own layers only, and no code."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.loading import load_model
from tests.export.sources.keras.comparison import keras, sequential


def saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


def edited(path: Path, change: Any) -> Path:
    """The file with its configuration changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_saved_model_is_read_with_its_weights(tmp_path: Path) -> None:
    parts = [layers.Masking(), layers.Bidirectional(layers.GRU(3)), layers.Dense(2, kernel_regularizer="l2")]
    model = sequential((None, 4), *parts)
    model.compile(loss=lambda expected, actual: actual)
    loaded = load_model(saved(model, tmp_path / "model.keras"))
    for first, second in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_model_with_code_is_refused_without_running_it(tmp_path: Path) -> None:
    path = saved(sequential((4,), layers.Lambda(lambda x: x + 1, name="plus")), tmp_path / "model.keras")
    with pytest.raises(
        ExportError, match=r"layer 'plus' \(Lambda\) holds Python code, which is never run; use built-in"
    ):
        load_model(path)


def test_custom_layer_is_refused(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="mine")
    class Twice(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * 2

    path = saved(sequential((4,), Twice(name="twice")), tmp_path / "model.keras")
    with pytest.raises(ExportError, match=r"layer 'twice' \(Twice\) is a custom object, which has no twin"):
        load_model(path)


def test_custom_function_is_refused(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="mine")
    def cube(x: Any) -> Any:
        return x**3

    path = saved(sequential((4,), layers.Dense(2, activation=cube)), tmp_path / "model.keras")
    with pytest.raises(ExportError, match="is a custom object"):
        load_model(path)


def test_class_from_another_module_is_not_imported(tmp_path: Path) -> None:
    path = saved(sequential((4,), layers.Dense(2)), tmp_path / "model.keras")

    def change(config: Any) -> None:
        config["config"]["layers"][1] |= {"module": "os", "class_name": "system", "registered_name": None}

    with pytest.raises(ExportError, match=r"\(system\) is a custom object"):
        load_model(edited(path, change))


def test_layer_without_a_twin_is_refused_with_the_list(tmp_path: Path) -> None:
    path = saved(sequential((4, 4, 3), layers.Cropping2D(1)), tmp_path / "model.keras")
    with pytest.raises(ExportError, match=r"\(Cropping2D\) has no twin; layers with one are Activation, .*onnx"):
        load_model(path)


def test_model_that_was_never_built_is_refused(tmp_path: Path) -> None:
    path = saved(keras.Sequential([layers.Dense(2)]), tmp_path / "model.keras")
    with pytest.raises(ExportError, match=r"begin it with keras\.Input and save it"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.h5", b"\x89HDF\r\n\x1a\n", "is no .keras file; save the model with model.save"),
        ("model.keras", b"\x89HDF\r\n\x1a\n", "is no .keras file"),
        ("absent.keras", None, "expected a .keras file, found nothing"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=reason):
        load_model(tmp_path / name)


def test_archive_without_configuration_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(ExportError, match=r"is damaged: config.json cannot be read"):
        load_model(tmp_path / "model.keras")


def test_missing_weights_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = saved(sequential((4,), layers.Dense(2)), tmp_path / "model.keras")

    def change(config: Any) -> None:
        config["config"]["layers"][1]["config"]["units"] = 3

    with pytest.raises(ExportError, match="Keras cannot load") as failure:
        load_model(edited(path, change))
    assert "\n" not in str(failure.value)
