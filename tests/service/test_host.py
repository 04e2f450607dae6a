"""Real servers: two hosts that answer alike, workers that die and come back, a service that leaves in good order."""

import contextlib
import http.client
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from granian import _futures

from service.http.rsgi import Door
from tests.e2e.serving import ROOT, SERVE, Started, environment, start
from tests.service.bodies import body
from tests.service.bundles import FAMILIES, NAMES, TASKS, example_inputs

GRANIAN = (sys.executable, "-m", "service")
JSON = {"content-type": "application/json"}
IMAGES = json.dumps(body("image-classifier"))
PIXELS = example_inputs("image-classifier", batch=1)["images"]
Answer = tuple[int, dict[str, str], bytes]


def ask(port: int, method: str, path: str, content: str | bytes = b"", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def classify(port: int) -> Answer:
    return ask(port, "POST", "/classify", IMAGES, content_type="application/json")


@contextlib.contextmanager
def served(command: tuple[str, ...], bundles: Path, folder: Path, **settings: str) -> Iterator[Started]:
    env = environment(EKIBEN_BUNDLES=str(bundles), BENTOML_HOME=str(folder), **settings)
    with start(command, env=env, cwd=ROOT, log=folder / "log") as started:
        yield started


@pytest.fixture(scope="module")
def granian(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with served((*GRANIAN, "--workers", "2"), served_bundles, tmp_path_factory.mktemp("granian")) as started:
        yield started


@pytest.fixture(scope="module")
def bentoml(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with served(SERVE, served_bundles, tmp_path_factory.mktemp("bentoml")) as started:
        yield started


def infer(**extra: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "shape": [1, 4, 4], "datatype": "UINT8", **extra}]}


BINARY = json.dumps(infer(parameters={"binary_data_size": 16}) | {"parameters": {"binary_data_output": True}})
REQUESTS: dict[str, tuple[str, str, str | bytes, dict[str, str]]] = {
    **{family: ("POST", f"/{TASKS[family]}", json.dumps(body(family)), JSON) for family in FAMILIES},
    "tensors": ("POST", "/v2/models/tiny-images/infer", json.dumps(infer(data=PIXELS.tolist())), {}),
    "bytes": (
        "POST", "/v2/models/tiny-images/infer", BINARY.encode() + PIXELS.tobytes(),
        {"inference-header-content-length": str(len(BINARY))},
    ),
    "blanks around a number": (
        "POST", "/v2/models/tiny-images/infer", BINARY.encode() + PIXELS.tobytes(),
        {"inference-header-content-length": f"\t {len(BINARY)} \t"},
    ),
    "a header twice": (
        "POST", "/classify", IMAGES, {**JSON, "X-Request-Timeout-Ms": "first", "x-request-timeout-ms": "5000"},
    ),
    "a header that is not ASCII": ("POST", "/classify", IMAGES, {**JSON, "x-request-timeout-ms": "\xff"}),
    "a content type that is not ASCII": ("POST", "/classify", IMAGES, {"content-type": "application/json; x=\xff"}),
    "server": ("GET", "/v2", b"", {}),
    "metadata": ("GET", "/v2/models/tiny-tags", b"", {}),
    "model ready": ("GET", "/v2/models/tiny-tags/ready", b"", {}),
    "ready": ("GET", "/readyz", b"", {}),
    "ready in OIP": ("GET", "/v2/health/ready", b"", {}),
    "alive": ("GET", "/livez", b"", {}),
    "no such path": ("GET", "/nothing", b"", {}),
    "no such page of the protocol": ("GET", "/v2/nothing", b"", {}),
    "wrong method": ("GET", "/classify", b"", {}),
    "wrong method of the framework": ("POST", "/docs.json", b"", {}),
    "no JSON": ("POST", "/classify", b"{", JSON),
    "a wrong item": ("POST", "/classify", json.dumps({**body("image-classifier"), "images": [1]}), JSON),
    "a wrong tensor": ("POST", "/v2/models/tiny-images/infer", json.dumps(infer(data=[256])), {}),
    "too large": ("POST", "/classify", b"", {**JSON, "content-length": str(17 << 20)}),
    "a HEAD": ("HEAD", "/models", b"", {}),
    "the API's description": ("GET", "/docs.json", b"", {}),
}  # fmt: skip
OF_THE_HOST = {"server", "date", "connection", "x-bentoml-request-id"}


@pytest.mark.parametrize("name", REQUESTS)
def test_both_hosts_answer_with_the_same_bytes(name: str, granian: Started, bentoml: Started) -> None:
    method, path, content, headers = REQUESTS[name]
    answers = []
    for host in (granian, bentoml):
        status, got, answer = ask(host.port, method, path, content, **headers)
        answers.append((status, {key: got[key] for key in got.keys() - OF_THE_HOST}, answer))
    assert answers[0] == answers[1]


def counted(host: Started, name: str) -> float:
    status, headers, text = ask(host.port, "GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    return sum(float(line.rpartition(" ")[2]) for line in text.decode().splitlines() if line.startswith(name))


@pytest.mark.parametrize(
    ("command", "num_workers"), [((*GRANIAN, "--workers", "2"), 2), (SERVE, 1)], ids=["granian", "bentoml"]
)
def test_metrics_tell_of_all_workers(
    command: tuple[str, ...], num_workers: int, served_bundles: Path, tmp_path: Path
) -> None:
    """On hosts of its own: workers tell of themselves now and then, so what others asked might come late."""
    executed = 'ekiben_engine_items_total{model="tiny-images",outcome="executed"'
    answered = 'ekiben_http_requests_total{route="/classify",status="200"}'
    with served(command, served_bundles, tmp_path) as host:
        wait_until(lambda: counted(host, "ekiben_ready_workers") == num_workers)  # so each told what it did until then
        before = counted(host, executed)
        for _ in range(12):  # each on a connection of its own, so on any worker
            assert classify(host.port)[0] == 200
        wait_until(lambda: (counted(host, executed), counted(host, answered)) == (before + 12, 12))


def test_granian_has_the_place_where_its_own_thread_refuses() -> None:
    """Not part of its interface: where it is missing, everybody is refused on the event loop, and late."""
    ours = list(inspect.signature(partial(Door, None)).parameters)  # type: ignore[arg-type]
    assert len(inspect.signature(_futures._cbsched_aioschedule).parameters) == len(ours) == 3
    assert "_cbsched_aioschedule(loop, self._ctx, cb)" in inspect.getsource(_futures._CBSchedulerAIO)


MARKED = """
import asyncio, time
from service.http.line import Line

line = Line()

async def app(scope, protocol):
    line.look(protocol, time.monotonic(), 0.0)
    began = time.monotonic()
    while line._sent_at and time.monotonic() < began + 20:
        await asyncio.sleep(0.001)
    protocol.response_str(200, [], "lost" if line._sent_at else "back")
"""


def test_granian_drops_what_a_future_was_cancelled_with_on_its_way(tmp_path: Path) -> None:
    """Nor is this: where it does not, no line ever looks long, or each does for two seconds."""
    (tmp_path / "marked.py").write_text(MARKED)
    command = (sys.executable, "-m", "granian", "--interface", "rsgi", "--host", "127.0.0.1", "marked:app")
    env = environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(tmp_path)]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([*command, "--port", str(port)], env=env, cwd=tmp_path) as server:
        try:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    status, _, answer = ask(port, "POST", "/", b"x")
                    break
                time.sleep(0.1)
            assert (status, answer) == (200, b"back")
        finally:
            server.terminate()


def test_a_worker_that_is_killed_takes_only_its_own_requests_with_it(granian: Started) -> None:
    """With two workers no new connection fails, before or after; the one that was killed is replaced."""
    stop = threading.Event()
    lost: list[float] = []
    answered: list[float] = []

    def keep_asking() -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                status, _, _ = classify(granian.port)
                assert status == 200
                answered.append(time.monotonic())
            except (OSError, http.client.HTTPException):
                lost.append(began)

    parent = psutil.Process(granian.process.pid)
    victim = parent.children()[0]
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking) for _ in range(4)]
        try:
            time.sleep(1)
            killed = time.monotonic()
            os.kill(victim.pid, signal.SIGKILL)
            wait_until(lambda: not victim.is_running())  # its parent has taken note: nothing of it is left
            gone = time.monotonic()
            wait_until(lambda: counted_or_nothing(granian) == 2)
            time.sleep(1)
        finally:
            stop.set()
    for future in asking:
        future.result()
    assert sum(began <= killed for began in lost) <= 4  # what was in flight
    assert all(began <= gone for began in lost)  # or met the socket of a process that was just dying
    assert min(time_ for time_ in answered if time_ > killed)
    assert victim.pid not in {child.pid for child in parent.children()}
    assert len(parent.children()) == 2
    wait_until(lambda: counted(granian, "ekiben_ready_workers") == 2)


def policies(process: psutil.Process) -> set[int]:
    found = set()
    for thread in process.threads():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            found.add(os.sched_getscheduler(thread.id))
    return found


def test_threads_that_share_one_core_do_not_interrupt_each_other(served_bundles: Path, tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:1])
    try:
        with served(GRANIAN, served_bundles, tmp_path) as started:
            assert classify(started.port)[0] == 200
            (worker,) = psutil.Process(started.process.pid).children()
            assert policies(worker) == {os.SCHED_BATCH}
    finally:
        os.sched_setaffinity(0, before)


def counted_or_nothing(host: Started) -> float:
    try:
        return counted(host, "ekiben_ready_workers")
    except (OSError, http.client.HTTPException):
        return -1


def test_sigterm_lets_nothing_new_in_and_finishes_what_it_let_in(served_bundles: Path, tmp_path: Path) -> None:
    with served(GRANIAN, served_bundles, tmp_path, EKIBEN_DRAIN_S="2") as host:
        slow = under_way(host)
        host.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(host.port, "GET", "/readyz")[0] == 503)
        status, headers, refused = classify(host.port)
        assert (status, json.loads(refused)["code"]) == (503, "not-ready")
        assert headers["retry-after"] == "1"
        late = half_a_request(host.port)
        assert late.recv(13) == b"HTTP/1.1 503 "
        assert ask(host.port, "GET", "/v2/health/ready")[0] == 503
        assert ask(host.port, "GET", "/livez")[0] == 200
        status, said = finished(slow)
        assert status == 200
        assert json.loads(said)["predictions"]
        assert host.process.wait(timeout=20) == 0, "nobody waits for the body of who was refused"
        late.close()


def test_a_stuck_request_does_not_outlive_the_grace_period(served_bundles: Path, tmp_path: Path) -> None:
    settings = {"EKIBEN_DRAIN_S": "0", "EKIBEN_GRACE_S": "4"}
    with served(GRANIAN, served_bundles, tmp_path, **settings) as host:
        stuck = under_way(host)
        workers = psutil.Process(host.process.pid).children(recursive=True)
        host.process.send_signal(signal.SIGTERM)
        host.process.wait(timeout=20)
        assert all(ended(worker) for worker in workers)
        stuck.close()


def ended(process: psutil.Process) -> bool:
    """Whether or not its parent has taken note."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def half_a_request(port: int) -> socket.socket:
    """A client that has sent a head and ten bytes of a body."""
    return send(port, "/classify", len(IMAGES), IMAGES[:10].encode())


def under_way(host: Started) -> socket.socket:
    """`half_a_request` that the service has let in."""
    client = half_a_request(host.port)
    wait_until(lambda: counted(host, "ekiben_http_in_flight") == 1)
    return client


def finished(client: socket.socket) -> tuple[int, bytes]:
    """The client sends the rest of its body: status and body of the answer."""
    with client:
        client.sendall(IMAGES[10:].encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        return answer.status, answer.read()


def send(port: int, path: str, length: int, content: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    client.sendall(head.encode() + content)
    return client


def wait_until(condition: Any, patience_s: float = 60) -> None:
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("host", ["granian", "bentoml"])
def test_clients_that_leave_end_their_generations(host: str, request: pytest.FixtureRequest) -> None:
    """Work for some seconds is asked for, then all who asked leave: nothing is computed for nobody."""
    started: Started = request.getfixturevalue(host)
    prompts = {"model": NAMES["language-model"], "prompt": ["the "] * 8, "max_tokens": 150, "seed": 1}
    content = json.dumps(prompts).encode()
    gone = 'ekiben_http_requests_total{route="/generate",status="499"}'
    before = counted(started, gone)
    clients = [send(started.port, "/generate", len(content), content) for _ in range(60)]
    wait_until(lambda: counted(started, "ekiben_http_in_flight") > 0)
    for client in clients:
        client.close()
    wait_until(lambda: counted(started, "ekiben_http_in_flight") == 0)
    wait_until(lambda: counted(started, gone) > before)
