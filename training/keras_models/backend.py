"""Keras on its PyTorch backend, imported when it is needed: the import takes seconds, and few commands need it."""

import os
import sys
from typing import Any

BACKEND = "torch"


def import_keras() -> Any:
    """The module keras on its backend torch. Raises ValueError if it is missing or runs on another backend."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = BACKEND
    try:
        import keras  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            "the package keras is missing; install the dependency group keras (pip install --group keras)"
        ) from error
    if keras.backend.backend() != BACKEND:
        raise ValueError(f"Keras runs on {keras.backend.backend()}, expected {BACKEND}; set KERAS_BACKEND={BACKEND}")
    return keras
