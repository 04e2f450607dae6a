"""The bundles of this checkout and a server that serves them."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.serving import ROOT, SERVE, environment, serving


@pytest.fixture(scope="session")
def bundles() -> Path:
    """The bundles of this checkout, or of the folder in EKIBEN_TEST_BUNDLES."""
    folder = Path(os.environ.get("EKIBEN_TEST_BUNDLES", ROOT / "bundles"))
    if not list(folder.glob("*/current")):
        pytest.skip(f"no bundle in {folder}: make export")
    return folder


@pytest.fixture(scope="session")
def runs(bundles: Path) -> Path:
    """The runs that the bundles were exported from, in the folder beside them."""
    return bundles.parent / "runs"


@pytest.fixture(scope="session")
def server(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ready `bentoml serve`."""
    folder = tmp_path_factory.mktemp("server")
    env = environment(EKIBEN_BUNDLES=str(bundles.resolve()), BENTOML_HOME=str(folder))
    with serving(SERVE, env=env, cwd=ROOT, log=folder / "log") as address:
        yield address


@pytest.fixture(scope="session")
def http(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client
