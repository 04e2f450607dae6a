"""Keras runs on PyTorch, whatever else is installed or configured."""

import sys

import pytest

from training.keras_models.backend import import_keras


def test_keras_runs_on_torch() -> None:
    assert import_keras().backend.backend() == "torch"


def test_missing_package_is_named_with_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ValueError, match="install the dependency group keras"):
        import_keras()


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_keras().backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="runs on jax, expected torch; set KERAS_BACKEND=torch"):
        import_keras()
