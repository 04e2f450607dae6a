"""A server over one tiny bundle of each family, started by its command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.serving import ROOT, SERVE, environment, serving
from tests.service.conftest import served_bundles

__all__ = ["served_bundles"]


@pytest.fixture(scope="session")
def address(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield HOST:PORT of a ready service."""
    folder = tmp_path_factory.mktemp("server")
    env = environment(EKIBEN_BUNDLES=str(served_bundles), BENTOML_HOME=str(folder))
    with serving(SERVE, env=env, cwd=ROOT, log=folder / "log") as url:
        yield url.removeprefix("http://")
