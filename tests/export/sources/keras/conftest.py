"""Keras reads its backend when it is imported, which the tests of this folder do; it warns of its own ways."""

import os
from pathlib import Path

import pytest

os.environ["KERAS_BACKEND"] = "torch"
WARNINGS = (
    "__array__ implementation doesn't accept a copy keyword",
    "Layer '.*' .of type .*. was passed an input with a mask attached to it",
    "You are saving a model that has not yet been built",
    "The object being serialized includes a `lambda`",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{warning}"))
