"""Keras reads its backend when it is imported; it warns of its own ways of making arrays."""

import os
from pathlib import Path

import pytest

os.environ["KERAS_BACKEND"] = "torch"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"))
