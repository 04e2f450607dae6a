"""A candidate answers its share of gRPC traffic, is compared on it, and is stopped by it alone."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from service.grpc.messages import parse_message, write_message
from service.grpc.server import SERVICE
from tests.e2e.serving import ServerProcess, free_port
from tests.service.engine.versions import FAMILY, NAME, differing_graph, set_candidate
from tests.service.hosts import GRANIAN, ask, counted, running_server, wait_until
from tests.service.poisoned import poisoned_graph, poisoned_item, write_whole_bundle

CANDIDATE = f"{NAME}@candidate"
SEEDS = count()  # of images, so that no two are the same


@pytest.fixture
def versions(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the serving version and the candidate, which has the graph of the parameter."""
    candidate = write_whole_bundle(tmp_path, FAMILY, NAME, model=request.param).name
    current = write_whole_bundle(tmp_path, FAMILY, NAME).name
    set_candidate(tmp_path / "bundles", candidate)
    return current, candidate


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[tuple[ServerProcess, grpc.Channel]]:
    """A service of two workers whose models and candidates are READY, and a channel to its gRPC port."""
    port = free_port()
    settings = {"EKIBEN_GRPC_PORT": str(port), "EKIBEN_POLL_S": "0.1", **settings}
    command = (*GRANIAN, "--workers", "2")
    with (
        running_server(command, folder / "bundles", folder, **settings) as host,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        wait_until(lambda: counted(host, f'ekiben_model_ready{{model="{NAME}"') == 4)
        yield host, channel


def version_of(channel: grpc.Channel, image: Any = None, *, model: str = NAME, version: str = "") -> str:
    """Return the version that answers a request with an image, a random one by default."""
    random_image = np.random.default_rng(next(SEEDS)).integers(0, 256, (4, 4))
    pixels = np.array(random_image if image is None else image, np.uint8)
    fields = {"model_name": model, "model_version": version, "raw_input_contents": [pixels.tobytes()]}
    fields["inputs"] = [{"name": "images", "datatype": "UINT8", "shape": [1, 4, 4]}]
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    answer = parse_message("ModelInferResponse", call(write_message("ModelInferRequest", fields), timeout=30))
    assert answer.model_name == NAME
    return str(answer.model_version)


def load(channel: grpc.Channel, num_requests: int) -> Counter[str]:
    with ThreadPoolExecutor(4) as pool:
        return Counter(pool.map(lambda _: version_of(channel), range(num_requests)))


def comparison(host: ServerProcess) -> dict[str, Any]:
    rows = json.loads(ask(host.port, "GET", "/models")[2])["models"]
    [row] = [row for row in rows if row["name"] == CANDIDATE]
    found: dict[str, Any] = row["comparison"]
    return found


@pytest.mark.parametrize("versions", [differing_graph(16)], indirect=True)
@pytest.mark.parametrize("canary", ["0", "0.5"])
def test_a_worse_candidate_is_stopped(canary: str, versions: tuple[str, str], tmp_path: Path) -> None:
    """One image of 16 gets other outputs from the candidate; no request is sent over HTTP."""
    current, candidate = versions
    with serving(tmp_path, EKIBEN_CANARY=canary, EKIBEN_MAX_DIFFERENCE="0.05") as (host, channel):
        assert set(load(channel, 40)) == ({current} if canary == "0" else {current, candidate})

        def stopped() -> bool:
            load(channel, 50)
            return bool(comparison(host)["decision"] == "stopped")

        wait_until(stopped)
        wait_until(lambda: comparison(host)["different"] >= 3)  # in both workers, of which one got all requests
        wait_until(lambda: any("/outputs/0/data/" in example for example in comparison(host)["examples"]))
        wait_until(lambda: load(channel, 50) == {current: 50})
        log = (tmp_path / "log").read_text()
        assert f"{NAME}: candidate {candidate} is stopped: " in log
        assert f"{NAME}: candidate {candidate} against {current}: request " in log


@pytest.mark.parametrize("versions", [differing_graph(0)], indirect=True)
def test_an_equal_candidate_passes_and_versions_have_their_addresses(versions: tuple[str, str], tmp_path: Path) -> None:
    current, candidate = versions
    with serving(tmp_path, EKIBEN_CANARY="0.5", EKIBEN_MAX_DIFFERENCE="0.1") as (host, channel):
        assert {version_of(channel, version=current) for _ in range(20)} == {current}
        assert {version_of(channel, model=CANDIDATE) for _ in range(20)} == {candidate}
        assert {version_of(channel, model=CANDIDATE, version=candidate) for _ in range(20)} == {candidate}
        for _ in range(20):
            with pytest.raises(grpc.RpcError, match=f"{NAME} serves version {current}, got '{candidate}'"):
                version_of(channel, version=candidate)
        assert comparison(host)["compared"] == 0
        wait_until(lambda: bool(load(channel, 50)) and comparison(host)["decision"] == "passed")
        assert (comparison(host)["different"], comparison(host)["failed"]) == (0, 0)


@pytest.mark.parametrize("versions", [poisoned_graph("image-classifier")], indirect=True)
def test_what_the_candidate_fails_is_answered_by_the_serving_version(versions: tuple[str, str], tmp_path: Path) -> None:
    current, candidate = versions
    item = poisoned_item("image-classifier")
    with serving(tmp_path, EKIBEN_CANARY="1", EKIBEN_MAX_DIFFERENCE="0.5") as (host, channel):
        assert version_of(channel) == candidate
        assert {version_of(channel, item) for _ in range(40)} == {current}
        wait_until(lambda: comparison(host)["decision"] == "stopped")
        wait_until(lambda: comparison(host)["failed"] >= 4)
        wait_until(lambda: any("not-finite" in example for example in comparison(host)["examples"]))
