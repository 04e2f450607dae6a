"""Servers over one tiny bundle of each family, started by the command of each host."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import ROOT, SERVE, environment, free_port, serving
from tests.service.conftest import served_bundles
from tests.service.hosts import GRANIAN

__all__ = ["served_bundles"]

COMMANDS = {"bentoml": SERVE, "granian": GRANIAN}


@pytest.fixture(scope="session", params=COMMANDS)
def address(
    request: pytest.FixtureRequest, served_bundles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield HOST:PORT of a ready service on either host."""
    folder = tmp_path_factory.mktemp("server")
    env = environment(EKIBEN_BUNDLES=str(served_bundles), BENTOML_HOME=str(folder))
    with serving(COMMANDS[request.param], env=env, cwd=ROOT, log=folder / "log") as url:
        yield url.removeprefix("http://")


@pytest.fixture(scope="session")
def grpc_ports(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Yield HOST:PORT of the HTTP and of the gRPC port of a ready service."""
    folder, port = tmp_path_factory.mktemp("grpc-server"), free_port()
    env = environment(EKIBEN_BUNDLES=str(served_bundles), EKIBEN_GRPC_PORT=str(port))
    with serving(GRANIAN, env=env, cwd=ROOT, log=folder / "log") as url:
        yield url.removeprefix("http://"), f"127.0.0.1:{port}"


def run_client(environment_name: str, script: str, *arguments: str) -> Any:
    """Run a script in the environment of a client; return what its last line says in JSON.

    Skips the test where `make prove-clients` has not made the environment.
    """
    python = ROOT / environment_name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no {environment_name}: make prove-clients installs it")
    done = subprocess.run([python, "-c", script, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
