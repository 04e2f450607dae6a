"""20 swaps of what a real server serves, 3 of them to broken bundles, under 64 clients that keep their connections.

No request fails, every answer is, to the bit, that of the version that it names, and a version that is broken changes
nothing but what /models says.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.connection import Answer, Connection
from service.bundle import Bundle, open_bundle
from service.tasks.replay import answer_now
from tests.e2e.serving import until
from tests.service.engine.versions import (
    NAME,
    flip_byte,
    publish,
    request_file,
    standalone_model,
    truncate_graph,
    wrong_golden,
)
from tests.service.test_host import GRANIAN, served

NUM_CLIENTS, NUM_SWAPS, NUM_IMAGES = 64, 20, 16
BROKEN = {5: "model.onnx has sha256 ", 11: "golden case ", 17: "model.onnx has "}  # swap -> what /models says of it
IMAGES = [np.random.default_rng(i).integers(0, 256, (1 + i % 4, 4, 4), dtype=np.uint8) for i in range(NUM_IMAGES)]
PATHS = ("/classify", f"/v2/models/{NAME}/infer")
Images = npt.NDArray[np.uint8]


def native(images: Images) -> dict[str, Any]:
    return {"model": NAME, "images": images.tolist()}


def request(path: str, images: Images) -> tuple[bytes, dict[str, str]]:
    """Body and headers; tensors as bytes there and back."""
    if path == "/classify":
        return json.dumps(native(images)).encode(), {"content-type": "application/json"}
    parameters = {"binary_data_size": images.size}
    entry = {"name": "images", "shape": images.shape, "datatype": "UINT8", "parameters": parameters}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return head + images.tobytes(), {"inference-header-content-length": str(len(head))}


def read(answer: Answer) -> tuple[str, Any]:
    """The version that made the answer, and what it says."""
    size = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    head = json.loads(answer.body[:size])
    return (head["model_version"], answer.body[size:]) if answer.body[size:] else (head.pop("version"), head)


REQUESTS_OF = [(path, *request(path, images)) for path in PATHS for images in IMAGES]


def expected(bundle: Bundle) -> list[Any]:
    """What this version answers to each request when it is alone."""
    model = standalone_model(bundle)
    documents = [answer_now(model, native(images)) for images in IMAGES]
    tensors = [model.session.run({"images": images}).values() for images in IMAGES]
    for document in documents:
        del document["version"]
    return [*documents, *(b"".join(value.tobytes() for value in values) for values in tensors)]


class Load:
    def __init__(self, port: int) -> None:
        self.known: dict[str, list[Any]] = {}  # version -> its answers
        self.failed: list[Answer] = []
        self.wrong: list[tuple[str, int]] = []
        self.served_by: list[str] = [""] * NUM_CLIENTS
        self.broken: str | None = None  # what every client is to read in /models
        self.told: set[int] = set()
        self.stop = False
        self.port = port

    async def client(self, number: int) -> None:
        rng = np.random.default_rng(number)
        connection = await Connection.open(self.port)
        while not self.stop:
            which = int(rng.integers(len(REQUESTS_OF)))
            path, body, headers = REQUESTS_OF[which]
            answer = await connection.ask("POST", path, body, headers)
            if answer.status != 200:
                self.failed.append(answer)
                continue
            version, said = read(answer)
            self.served_by[number] = version
            if version not in self.known or said != self.known[version][which]:
                self.wrong.append((version, which))
            if (
                self.broken is not None
                and number not in self.told
                and self._says(await connection.ask("GET", "/models"))
            ):
                self.told.add(number)
        connection.close()

    def _says(self, answer: Answer) -> bool:
        (row,) = json.loads(answer.body)["models"]
        follows = row["next"] or {"state": None}
        return follows["state"] == "FAILED" and self.broken in follows["reason"] and row["state"] == "READY"


class Swaps:
    """Versions are put in place in `root`; what they answer is known before, from a draft."""

    def __init__(self, root: Path, load: Load) -> None:
        self._root = root
        self._drafts = root.with_name("drafts")
        self._load = load

    def publish(self, number: int) -> str:
        files = self._files(number)
        version = publish(self._drafts, number, files=files)
        self._load.known[version] = expected(open_bundle(self._drafts / NAME / version))
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
        """A request case that is right takes a model to answer it."""
        bundle = open_bundle(self._drafts / NAME / publish(self._drafts, number))
        return request_file(bundle, native(IMAGES[0]))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_versions_come_and_go_under_load(num_workers: int, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    load = Load(0)
    swaps = Swaps(root, load)
    first = swaps.publish(0)
    command = (*GRANIAN, "--workers", str(num_workers))

    async def scenario() -> None:
        clients = [asyncio.create_task(load.client(number)) for number in range(NUM_CLIENTS)]
        await until(lambda: set(load.served_by) == {first})
        for number in range(1, NUM_SWAPS + 1):
            if number in BROKEN:
                await asyncio.to_thread(swaps.publish_broken, number)
                load.told.clear()
                load.broken = BROKEN[number]
                await until(lambda: len(load.told) == NUM_CLIENTS)
                load.broken = None
            else:
                version = await asyncio.to_thread(swaps.publish, number)
                await until(lambda version=version: set(load.served_by) == {version})
        load.stop = True
        await asyncio.gather(*clients)

    with served(command, root, tmp_path, EKIBEN_POLL_S="0.05", EKIBEN_HEARTBEAT_S="0.2") as host:
        load.port = host.port
        asyncio.run(scenario())
        log = (tmp_path / "log").read_text()
    assert (load.failed, load.wrong) == ([], [])
    assert len(load.known) == 1 + NUM_SWAPS - len(BROKEN)
    assert log.count("goes on serving") == len(BROKEN) * num_workers
