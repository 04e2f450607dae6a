"""A real server replaces its model 20 times, 3 times by a broken bundle, under 64 clients with keep-alive connections.

No request fails, and every response is equal, bit by bit, to that of the version that it names. A broken version
changes nothing but the output of /models.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.connection import Connection, Response
from service.bundle import Bundle, open_bundle
from service.tasks.replay import answer_request_sync
from tests.e2e.serving import eventually
from tests.service.engine.versions import (
    NAME,
    flip_byte,
    publish,
    request_file,
    standalone_model,
    truncate_graph,
    wrong_golden,
)
from tests.service.hosts import GRANIAN, running_server

NUM_CLIENTS, NUM_SWAPS, NUM_IMAGES = 64, 20, 16
# Swap number -> the reason that /models reports.
BROKEN = {5: "model.onnx has sha256 ", 11: "golden case ", 17: "model.onnx has "}
IMAGES = [np.random.default_rng(i).integers(0, 256, (1 + i % 4, 4, 4), dtype=np.uint8) for i in range(NUM_IMAGES)]
PATHS = ("/classify", f"/v2/models/{NAME}/infer")
Images = npt.NDArray[np.uint8]


def json_request(images: Images) -> dict[str, Any]:
    return {"model": NAME, "images": images.tolist()}


def request(path: str, images: Images) -> tuple[bytes, dict[str, str]]:
    """Body and headers; tensors are bytes in the request and in the response."""
    if path == "/classify":
        return json.dumps(json_request(images)).encode(), {"content-type": "application/json"}
    parameters = {"binary_data_size": images.size}
    entry = {"name": "images", "shape": images.shape, "datatype": "UINT8", "parameters": parameters}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return head + images.tobytes(), {"inference-header-content-length": str(len(head))}


def parse(response: Response) -> tuple[str, Any]:
    """The version that a response names, and its content."""
    size = int(response.headers.get("inference-header-content-length", len(response.body)))
    head = json.loads(response.body[:size])
    return (head["model_version"], response.body[size:]) if response.body[size:] else (head.pop("version"), head)


REQUESTS = [(path, *request(path, images)) for path in PATHS for images in IMAGES]


def expected(bundle: Bundle) -> list[Any]:
    """The response of this version to each request, computed without batching."""
    model = standalone_model(bundle)
    documents = [answer_request_sync(model, json_request(images)) for images in IMAGES]
    tensors = [model.session.run({"images": images}).values() for images in IMAGES]
    for document in documents:
        del document["version"]
    return [*documents, *(b"".join(value.tobytes() for value in values) for values in tensors)]


class VersionCheckedLoad:
    """Clients that check every response against those of the version that it names.

    `expected` has the responses by version, `versions` the version last seen by each client.
    While `broken` is set, each client reads /models until it reports that reason, and then adds itself to `informed`.
    """

    def __init__(self, port: int) -> None:
        self.expected: dict[str, list[Any]] = {}
        self.failed: list[Response] = []
        self.incorrect: list[tuple[str, int]] = []
        self.versions: list[str] = [""] * NUM_CLIENTS
        self.broken: str | None = None
        self.informed: set[int] = set()
        self.stop = False
        self.port = port

    async def client(self, number: int) -> None:
        rng = np.random.default_rng(number)
        connection = await Connection.open(self.port)
        while not self.stop:
            index = int(rng.integers(len(REQUESTS)))
            path, body, headers = REQUESTS[index]
            response = await connection.request("POST", path, body, headers)
            if response.status != 200:
                self.failed.append(response)
                continue
            version, content = parse(response)
            self.versions[number] = version
            if version not in self.expected or content != self.expected[version][index]:
                self.incorrect.append((version, index))
            if (
                self.broken is not None
                and number not in self.informed
                and self._reports_broken(await connection.request("GET", "/models"))
            ):
                self.informed.add(number)
        connection.close()

    def _reports_broken(self, response: Response) -> bool:
        (row,) = json.loads(response.body)["models"]
        next_version = row["next"] or {"state": None}
        return next_version["state"] == "FAILED" and self.broken in next_version["reason"] and row["state"] == "READY"


class Swaps:
    """Publishes versions in `root`, after their expected responses have been computed from a copy in another folder."""

    def __init__(self, root: Path, load: VersionCheckedLoad) -> None:
        self._root = root
        self._staging = root.with_name("drafts")
        self._load = load

    def publish(self, number: int) -> str:
        files = self._files(number)
        version = publish(self._staging, number, files=files)
        self._load.expected[version] = expected(open_bundle(self._staging / NAME / version))
        return publish(self._root, number, files=files)

    def publish_broken(self, number: int) -> None:
        files = self._files(number)
        match list(BROKEN).index(number):
            case 0:
                publish(self._root, number, files=files, spoil=flip_byte)
            case 1:
                publish(self._root, number, files=files | wrong_golden(number))
            case _:
                publish(self._root, number, files=files, spoil=truncate_graph)

    def _files(self, number: int) -> dict[str, bytes]:
        """The request file, with answers from a first copy of the bundle."""
        bundle = open_bundle(self._staging / NAME / publish(self._staging, number))
        return request_file(bundle, json_request(IMAGES[0]))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_versions_are_replaced_under_load_without_a_failed_or_incorrect_response(
    num_workers: int, tmp_path: Path
) -> None:
    root = tmp_path / "bundles"
    load = VersionCheckedLoad(0)
    swaps = Swaps(root, load)
    first = swaps.publish(0)
    command = (*GRANIAN, "--workers", str(num_workers))

    def count_refusals() -> int:
        return (tmp_path / "log").read_text().count("is still being served")

    async def scenario() -> None:
        clients = [asyncio.create_task(load.client(number)) for number in range(NUM_CLIENTS)]
        await eventually(lambda: set(load.versions) == {first})
        for number in range(1, NUM_SWAPS + 1):
            if number in BROKEN:
                await asyncio.to_thread(swaps.publish_broken, number)
                load.informed.clear()
                load.broken = BROKEN[number]
                await eventually(lambda: len(load.informed) == NUM_CLIENTS)
                # A worker whose connections are few may be slower; it would pass over a version that is replaced.
                num_refusals = num_workers * sum(broken <= number for broken in BROKEN)
                await eventually(lambda expected=num_refusals: count_refusals() == expected)
                load.broken = None
            else:
                version = await asyncio.to_thread(swaps.publish, number)
                await eventually(lambda version=version: set(load.versions) == {version})
        load.stop = True
        await asyncio.gather(*clients)

    with running_server(command, root, tmp_path, EKIBEN_POLL_S="0.05", EKIBEN_HEARTBEAT_S="0.2") as host:
        load.port = host.port
        asyncio.run(scenario())
    assert (load.failed, load.incorrect) == ([], [])
    assert len(load.expected) == 1 + NUM_SWAPS - len(BROKEN)
    assert count_refusals() == len(BROKEN) * num_workers
