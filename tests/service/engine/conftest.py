"""Bundles and sessions of every family, created once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service.bundle import Bundle, open_bundle
from service.engine.sessions.session import Session
from tests.service.bundles import FAMILIES, write_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    root: Path = tmp_path_factory.mktemp("bundles")
    return {family: open_bundle(write_bundle(root, family)) for family in FAMILIES}


@pytest.fixture(scope="session")
def sessions(bundles: dict[str, Bundle]) -> dict[str, Session]:
    return {family: Session(bundle.model, manifest=bundle.manifest, device="cpu") for family, bundle in bundles.items()}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function write(family, **changes) that writes a bundle to tmp_path and returns its folder."""
    return lambda family, **changes: write_bundle(tmp_path, family, **changes)
