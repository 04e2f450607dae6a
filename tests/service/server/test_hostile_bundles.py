"""Bundles that exhaust a machine, hang or kill a worker, on real servers whose other models answer meanwhile."""

import contextlib
import http.client
import json
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import psutil
import pytest
from onnx import numpy_helper, parser

from tests.e2e.serving import ROOT, SERVE, ServerProcess
from tests.service.bundles import NAMES, OPSET, bundle_files, weights, write_bundle
from tests.service.engine.versions import slow_graph
from tests.service.hosts import GRANIAN, ask, classify, running_server, wait_until

FAMILY = "image-classifier"
HOSTS = pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=["granian", "bentoml"])
# 8.6 GB of zeros that are added to the logits.
ALLOCATING = """
(uint8[batch, 4, 4] images) => (float[batch, 3] logits, float[batch, 3] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  shape = Mul (side, side)
  zeros = ConstantOfShape (shape)
  total = ReduceSum <keepdims = 0> (zeros)
  start = Gemm (flat, w, b)
  logits = Add (start, total)
  probabilities = Softmax <axis = -1> (logits)
}"""
# Without a loop, minutes of computing: products of 2048 x 2048 matrices.
COMPUTING = """
(uint8[batch, 4, 4] images) => (float[batch, 3] logits, float[batch, 3] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  x_sum = ReduceSum <keepdims = 0> (flat)
  zero = Sub (x_sum, x_sum)
  zeros = ConstantOfShape (side)
  m_0 = Add (zeros, zero)
  PRODUCTS
  total = ReduceSum <keepdims = 0> (m_LAST)
  start = Gemm (flat, w, b)
  logits = Add (start, total)
  probabilities = Softmax <axis = -1> (logits)
}"""
NUM_PRODUCTS = 600
# Runs at the start of every Python process that has its folder in PYTHONPATH.
KILL_IN_WARMUP = """
import os, signal, sys
if {"service", "_bentoml_impl.worker.service"} & set(sys.orig_argv):
    from service.engine.repository import loader
    warm_up = loader.warm_up
    def kill(session, planner=None):
        if session.manifest.name == "tiny-series":
            os.kill(os.getpid(), signal.SIGKILL)
        return warm_up(session, planner)
    loader.warm_up = kill
"""


def graph(text: str, **constants: npt.NDArray[Any]) -> bytes:
    model: onnx.ModelProto = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {OPSET}]>\ntiny_images {text.strip()}'
    )
    parts = {**weights(FAMILY), **constants}
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in parts.items())
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def hostile_graphs() -> dict[str, bytes]:
    products = "\n  ".join(f"m_{i + 1} = MatMul (m_{i}, m_{i})" for i in range(NUM_PRODUCTS))
    computing = COMPUTING.replace("PRODUCTS", products).replace("LAST", str(NUM_PRODUCTS))
    return {
        "a-allocating": graph(ALLOCATING, side=np.array([46_341])),
        "a-computing": graph(computing, side=np.array([2048, 2048])),
        "a-looping": slow_graph(1 << 40),
        "a-broken": b"\x0a\xff\xff",
    }


def publish(root: Path) -> None:
    for name, model in hostile_graphs().items():
        write_bundle(root, FAMILY, name=name, files=bundle_files(FAMILY, model=model), control_flow=True)


def models(port: int) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in json.loads(ask(port, "GET", "/models")[2])["models"]}


@contextmanager
def asking(port: int) -> Iterator[list[float]]:
    """Send requests to the healthy model without a pause; yield the seconds that each took. None may fail."""
    stop, seconds, failures = threading.Event(), [], []

    def run() -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                status, _, content = classify(port)
                if status != 200:
                    failures.append((status, content))
            except (OSError, http.client.HTTPException) as error:
                failures.append((0, repr(error).encode()))
            seconds.append(time.monotonic() - began)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.fixture
def root(served_bundles: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(served_bundles, tmp_path / "bundles"))


def has_failed(port: int, *names: str) -> bool:
    found = models(port)
    return all(found.get(name, {}).get("state") == "FAILED" for name in names)


@HOSTS
def test_the_other_models_answer_while_hostile_bundles_are_loaded(
    command: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    with running_server(command, root, tmp_path, EKIBEN_HANG_S="5") as host:
        with asking(host.port) as seconds:
            publish(root)
            wait_until(lambda: has_failed(host.port, *hostile_graphs()))
        assert len(seconds) > 50
        assert max(seconds) < 5, "no request waited for a hostile bundle to time out"
        found = models(host.port)
        assert {found[name]["state"] for name in NAMES.values()} == {"READY"}
        assert all(found[name]["reason"] for name in hostile_graphs())
        assert ask(host.port, "GET", "/readyz")[0] == 200, "they were not there at the start"


def test_hostile_bundles_at_the_start_hold_up_only_the_readiness(root: Path, tmp_path: Path) -> None:
    publish(root)
    names = ",".join(NAMES.values())
    with running_server(GRANIAN, root, tmp_path, EKIBEN_HANG_S="5", EKIBEN_READY_WHEN=names) as host:
        assert not has_failed(host.port, "a-computing"), "the service is ready before it has timed out"
        with asking(host.port):
            wait_until(lambda: has_failed(host.port, *hostile_graphs()))
        assert ask(host.port, "GET", "/readyz")[0] == 200


@HOSTS
def test_a_version_that_kills_workers_is_quarantined(command: tuple[str, ...], root: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILL_IN_WARMUP)
    settings = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "EKIBEN_READY_WHEN": "tiny-images"}
    with running_server(command, root, tmp_path, **settings) as host:

        def is_over() -> bool:
            try:
                return has_failed(host.port, "tiny-series")
            except (OSError, http.client.HTTPException):
                return False

        wait_until(is_over)
        wait_until(lambda: {model["state"] for model in models(host.port).values()} == {"READY", "FAILED"})
        found = models(host.port)
        assert "a worker died while loading it, 2 times" in found.pop("tiny-series")["reason"]
        assert {model["state"] for model in found.values()} == {"READY"}
        assert classify(host.port)[0] == 200


def worker_of(host: ServerProcess) -> psutil.Process:
    processes = psutil.Process(host.process.pid).children(recursive=True)
    return next(process for process in processes if process.num_threads() > 2)


def test_a_shortage_of_descriptors_while_loading_passes(root: Path, tmp_path: Path) -> None:
    """The worker may open one file at a time, which is enough to see the model, but not to start a process."""
    shutil.move(root / "tiny-series", tmp_path / "later")
    with running_server(GRANIAN, root, tmp_path, EKIBEN_POLL_S="0.2") as host:
        worker = worker_of(host)
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=30)

        def series() -> dict[str, Any]:
            connection.request("GET", "/models")
            found = {model["name"]: model for model in json.loads(connection.getresponse().read())["models"]}
            return found.get("tiny-series", {"state": None})

        assert series()["state"] is None
        limits = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        used = {int(path.name) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
        free = next(number for number in range(len(used) + 1) if number not in used)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        shutil.move(tmp_path / "later", root / "tiny-series")
        wait_until(lambda: series()["state"] == "FAILED")
        assert "Too many open files" in series()["reason"]
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, limits)
        wait_until(lambda: series()["state"] == "READY")
        connection.close()


def zygote_of(root: Path) -> psutil.Process:
    """The process that forks the children of the service with these bundles."""
    for process in psutil.process_iter(["cmdline"]):
        if "service.engine.process.zygote" in " ".join(process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("EKIBEN_BUNDLES") == str(root):
                    return process
    raise AssertionError("there is no such process")


def test_a_shortage_of_memory_while_loading_passes(root: Path, tmp_path: Path) -> None:
    """Children get no address space at first; a bundle that is at fault fails for good meanwhile."""
    shutil.move(root / "tiny-series", tmp_path / "later")
    with running_server(GRANIAN, root, tmp_path, EKIBEN_POLL_S="0.2") as host:
        zygote = zygote_of(root)
        limits = resource.prlimit(zygote.pid, resource.RLIMIT_AS)
        resource.prlimit(zygote.pid, resource.RLIMIT_AS, (zygote.memory_info().vms, limits[1]))
        shutil.move(tmp_path / "later", root / "tiny-series")
        wait_until(lambda: has_failed(host.port, "tiny-series"))
        reason = models(host.port)["tiny-series"]["reason"]
        # Wherever the memory ends: in the child, while it starts, or in the zygote, which is replaced then.
        assert any(text in reason for text in ("MemoryError", "perhaps for lack of memory", "starts children ended"))
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(zygote.pid, resource.RLIMIT_AS, limits)
        write_bundle(root, FAMILY, name="a-broken", files=bundle_files(FAMILY, model=b"\x0a\xff\xff"))
        wait_until(lambda: models(host.port)["tiny-series"]["state"] == "READY")
        assert has_failed(host.port, "a-broken")
