"""Index, load and unload of a real service, and what every worker and the next one make of them."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.testclient import TestClient

from tests.e2e.serving import SERVE
from tests.service.hosts import GRANIAN, ask, counted_or_nothing, running_server, wait_until

NAME = "tiny-images"


def test_a_model_is_unloaded_and_loaded_again(client: TestClient) -> None:
    index = client.post("/v2/repository/index").json()
    version = client.get(f"/models/{NAME}").json()["version"]
    assert {"name": NAME, "version": version, "state": "READY", "reason": ""} in index
    unload = client.post(f"/v2/repository/models/{NAME}/unload", json={"parameters": {"unload_dependents": False}})
    try:
        assert (unload.status_code, unload.json()) == (200, {})
        assert client.get(f"/v2/models/{NAME}/ready").status_code == 503
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert NAME not in {entry["name"] for entry in ready}
        assert {entry["name"] for entry in client.post("/v2/repository/index", content="{}").json()} >= {NAME}
    finally:
        load = client.post(f"/v2/repository/models/{NAME}/load")
    assert load.status_code == 200
    assert client.get(f"/v2/models/{NAME}/ready").status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "status", "detail"),
    [
        ("models/none/load", "", 404, "no model 'none'"),
        ("models/none/unload", "{}", 404, "no model 'none'"),
        ("models/tiny-images/load", '{"parameters": {"config": "{}"}}', 422, "a bundle has its own files"),
        ("models/tiny-images/load", "[]", 422, "expected an object"),
        ("models/tiny-images/load", "{", 400, "expected a JSON object"),
        ("models/tiny-images/reload", "", 404, "there is no /v2/repository/models/tiny-images/reload"),
        ("models//load", "", 404, "no model ''"),
        ("index", '{"ready": "yes"}', 422, "/ready: expected true or false"),
        ("", "", 404, "there is no /v2/repository"),
    ],
)
def test_a_wrong_request_is_an_error_of_the_protocol(
    path: str, content: str, status: int, detail: str, client: TestClient
) -> None:
    response = client.post(f"/v2/repository/{path}", content=content)
    assert response.status_code == status, response.text
    assert detail in response.json()["error"]


def test_get_is_no_method_of_these_routes(client: TestClient) -> None:
    for path in ("index", f"models/{NAME}/load", f"models/{NAME}/unload"):
        assert client.get(f"/v2/repository/{path}").status_code == 405


@pytest.mark.parametrize(
    "path", ["systemsharedmemory/status", "models/tiny-images/trace/setting", "trace/setting", "logging"]
)
def test_extensions_that_are_left_out_are_named(path: str, client: TestClient) -> None:
    response = client.get(f"/v2/{path}")
    assert response.status_code == 404
    assert "of Triton are left out" in response.json()["error"]


def states(port: int) -> set[str]:
    """The states that 16 connections see, each of which may reach another worker."""
    answers = [json.loads(ask(port, "GET", "/models")[2])["models"] for _ in range(16)]
    return {row["state"] for rows in answers for row in rows if row["name"] == NAME}


def infer_statuses(port: int) -> set[int]:
    return {ask(port, "GET", f"/v2/models/{NAME}/ready")[0] for _ in range(16)}


def everywhere(port: int, status: int) -> Callable[[], bool]:
    return lambda: infer_statuses(port) == {status}


def load_or_unload(port: int, action: str) -> None:
    status, _, content = ask(port, "POST", f"/v2/repository/models/{NAME}/{action}")
    assert (status, content) == (200, b"{}")


COMMANDS: dict[str, Any] = {
    "granian": (*GRANIAN, "--workers", "2"),
    "bentoml": (*SERVE, "--api-workers", "2"),
}


@pytest.mark.parametrize("host", COMMANDS)
def test_a_request_reaches_every_worker(host: str, served_bundles: Path, tmp_path: Path) -> None:
    with running_server(COMMANDS[host], served_bundles, tmp_path, EKIBEN_POLL_S="0.1") as server:
        wait_until(everywhere(server.port, 200))
        load_or_unload(server.port, "unload")
        wait_until(everywhere(server.port, 503))
        assert ask(server.port, "GET", "/readyz")[0] == 200, "the other model serves"
        load_or_unload(server.port, "load")
        wait_until(everywhere(server.port, 200))


def test_an_unloaded_model_stays_unloaded_when_a_worker_is_replaced(served_bundles: Path, tmp_path: Path) -> None:
    with running_server(COMMANDS["granian"], served_bundles, tmp_path, EKIBEN_POLL_S="0.1") as server:
        wait_until(lambda: counted_or_nothing(server) == 2)
        load_or_unload(server.port, "unload")
        wait_until(everywhere(server.port, 503))
        master = psutil.Process(server.process.pid)
        before = {child.pid for child in master.children()}
        connection_owner(server.port).kill()
        wait_until(lambda: {child.pid for child in master.children()} - before)
        wait_until(lambda: counted_or_nothing(server) == 2)
        assert infer_statuses(server.port) == {503}
        assert states(server.port) == {"UNLOADED"}


def connection_owner(port: int) -> psutil.Process:
    """A worker: a process that holds one end of a connection to the service."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        mine = client.getsockname()[1]
        wait_until(lambda: _owners(mine))
        return psutil.Process(_owners(mine)[0])


def _owners(client_port: int) -> list[int]:
    connections = psutil.net_connections("tcp4")
    return [c.pid for c in connections if c.raddr and c.raddr.port == client_port and c.pid is not None]
