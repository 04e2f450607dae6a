"""A gRPC port that cannot be served is one line at the start of the service."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.grpc import port
from service.grpc.port import grpc_problem
from tests.e2e.serving import ROOT, environment, free_port


def test_a_free_port_is_no_problem() -> None:
    assert grpc_problem("127.0.0.1", free_port()) is None


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        number = taken.getsockname()[1]
        assert grpc_problem("127.0.0.1", number) == f"EKIBEN_GRPC_PORT={number}: Address already in use"


@pytest.mark.parametrize("absent", ["grpc", "google.protobuf"])
def test_a_missing_package_is_named(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "find_spec", lambda name: None if name == absent else object())
    problem = grpc_problem("127.0.0.1", 1)
    assert problem == f"EKIBEN_GRPC_PORT=1: the package {absent} is missing; install the group grpc beside serve"


def test_a_missing_parent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(port, "find_spec", find_spec)
    assert "the package grpc is missing" in str(grpc_problem("127.0.0.1", 1))


def test_the_service_does_not_start_on_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        env = environment(EKIBEN_GRPC_PORT=str(taken.getsockname()[1]), EKIBEN_BUNDLES=str(tmp_path))
        command = [sys.executable, "-m", "service", "--port", str(free_port())]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Address already in use" in done.stderr
