"""Clients that leave a real server while they are queued: nothing is computed for them."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.bundle import MODEL, open_bundle
from tests.e2e.serving import SERVE, Started
from tests.service.engine.versions import NAME, publish, request_file, slow_graph
from tests.service.test_host import GRANIAN, ask, counted, send, served, wait_until

NUM_TURNS = 1 << 17  # of the graph's loop: some 0.3 s
NUM_WHO_STAY, NUM_WHO_LEAVE = 10, 5
BODY = {"model": NAME, "images": np.zeros((1, 4, 4), np.uint8).tolist()}
CONTENT = json.dumps(BODY).encode()


@pytest.fixture
def slow_bundles(tmp_path: Path) -> Path:
    """A folder with a model that takes its time."""
    changes = {"limits": {"max_items": 3}}
    files = {MODEL: slow_graph(NUM_TURNS)}
    draft = tmp_path / "drafts"
    bundle = open_bundle(draft / NAME / publish(draft, 0, files=files, **changes))
    publish(tmp_path / "bundles", 0, files=files | request_file(bundle, BODY), **changes)
    return tmp_path / "bundles"


def items(host: Started, outcome: str) -> float:
    return counted(host, f'ekiben_engine_items_total{{model="{NAME}",outcome="{outcome}"')


@pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=["granian", "bentoml"])
def test_what_is_queued_for_clients_that_left_is_never_computed(
    command: tuple[str, ...], slow_bundles: Path, tmp_path: Path
) -> None:
    settings = {"EKIBEN_THREADS": "1", "EKIBEN_MAX_BATCH_ITEMS": "1"}
    with served(command, slow_bundles, tmp_path, **settings) as host:
        assert ask(host.port, "POST", "/classify", CONTENT, content_type="application/json")[0] == 200
        before = items(host, "executed")
        staying = [send(host.port, "/classify", len(CONTENT), CONTENT) for _ in range(NUM_WHO_STAY)]
        wait_until(lambda: counted(host, "ekiben_http_in_flight") == NUM_WHO_STAY)
        leaving = [send(host.port, "/classify", len(CONTENT), CONTENT) for _ in range(NUM_WHO_LEAVE)]
        wait_until(lambda: counted(host, "ekiben_engine_queue_items") >= NUM_WHO_LEAVE)
        for client in leaving:
            client.close()
        wait_until(lambda: items(host, "cancelled") == NUM_WHO_LEAVE)
        assert [client.recv(15) for client in staying] == [b"HTTP/1.1 200 OK"] * NUM_WHO_STAY
        for client in staying:
            client.close()
        assert items(host, "executed") == before + NUM_WHO_STAY
