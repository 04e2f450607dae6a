"""Each test decides about TF32 as a new process would."""

from collections.abc import Iterator

import pytest

from service.engine.sessions import device


@pytest.fixture(autouse=True)
def fresh_cuda() -> Iterator[None]:
    device._load_libraries.cache_clear()
    yield
    device._load_libraries.cache_clear()
