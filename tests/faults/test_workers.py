"""Workers of a real server that are killed, stopped or interrupted: lost requests, reports, respawned workers."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import onnxruntime as ort
import psutil
import pytest

from benchmarks.engine.kills import CheckedLoad
from service.bundle import open_bundle
from service.manifest import MODEL
from tests.e2e.serving import ROOT, environment, eventually, free_port
from tests.service.conftest import served_bundles
from tests.service.engine.versions import NAME, endless_graph, publish, request_file
from tests.service.hosts import (
    GRANIAN,
    IMAGES,
    ask,
    classify,
    counted,
    ended,
    finished,
    running_server,
    under_way,
    wait_until,
)
from tests.service.requests import request_body

__all__ = ["served_bundles"]
NUM_CLIENTS = 8


def kill(workers: list[psutil.Process], load: CheckedLoad) -> None:
    load.kills.append(time.monotonic())
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_killed_workers_lose_only_their_pending_requests(
    num_workers: int, served_bundles: Path, tmp_path: Path
) -> None:
    """All workers are killed at once, and their successors as soon as they exist; readiness is reported correctly."""
    with running_server((*GRANIAN, "--workers", str(num_workers)), served_bundles, tmp_path) as host:
        parent = psutil.Process(host.process.pid)
        load = CheckedLoad(port=host.port, body=IMAGES.encode())

        async def scenario() -> None:
            tasks = [asyncio.create_task(load.client()) for _ in range(NUM_CLIENTS)]
            tasks.append(asyncio.create_task(load.probe()))
            await eventually(lambda: load.answered > 10 * NUM_CLIENTS)
            for _ in range(3):
                before = parent.children()
                kill(before, load)
                await eventually(lambda before=before: len(set(parent.children()) - set(before)) == num_workers)
            answered = load.answered
            await load.wait_for_correct_response()
            await eventually(lambda: load.answered > answered + 10 * NUM_CLIENTS)
            load.stop = True
            await asyncio.gather(*tasks)

        asyncio.run(scenario())
        assert load.lost >= 1
        assert (load.lost_without_kill, load.incorrect, load.false_ready) == (0, 0, 0)
        wait_until(lambda: counted(host, "ekiben_ready_workers") == num_workers)
        assert len(parent.children()) == num_workers


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="there is a GPU to serve on")
def test_a_worker_that_cannot_start_ends_the_service_and_the_reason_is_logged(
    served_bundles: Path, tmp_path: Path
) -> None:
    env = environment(EKIBEN_BUNDLES=str(served_bundles), EKIBEN_DEVICE="cuda", BENTOML_HOME=str(tmp_path))
    command = [*GRANIAN, "--port", str(free_port())]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "device 'cuda' was requested" in done.stderr


def test_sigint_drains_like_sigterm(served_bundles: Path, tmp_path: Path) -> None:
    """For Ctrl-C a terminal sends SIGINT to the parent and to every worker."""
    with running_server(GRANIAN, served_bundles, tmp_path, EKIBEN_DRAIN_S="2") as host:
        slow = under_way(host)
        os.killpg(host.process.pid, signal.SIGINT)
        wait_until(lambda: ask(host.port, "GET", "/readyz")[0] == 503)
        assert classify(host.port)[0] == 200
        wait_until(lambda: classify(host.port)[0] == 503)
        status, content = finished(slow)
        assert (status, len(json.loads(content)["predictions"])) == (200, 1)
        assert host.process.wait(timeout=20) == 0


def test_a_stuck_worker_is_killed_after_the_grace_period(served_bundles: Path, tmp_path: Path) -> None:
    """The worker is stopped with SIGSTOP, so that not even its signal handlers run."""
    with running_server((*GRANIAN, "--workers", "2"), served_bundles, tmp_path, EKIBEN_GRACE_S="4") as host:
        workers = psutil.Process(host.process.pid).children()
        os.kill(workers[0].pid, signal.SIGSTOP)
        host.process.terminate()
        host.process.wait(timeout=30)
        assert all(ended(worker) for worker in workers)


def test_sighup_ends_neither_the_parent_nor_a_worker(served_bundles: Path, tmp_path: Path) -> None:
    """Scripts send SIGHUP to make a server reload its files, and a closing terminal sends it to all processes."""
    with running_server((*GRANIAN, "--workers", "2"), served_bundles, tmp_path) as host:
        workers = psutil.Process(host.process.pid).children()
        wait_until(lambda: counted(host, "ekiben_ready_workers") == 2)
        slow = under_way(host)
        os.killpg(host.process.pid, signal.SIGHUP)
        wait_until(lambda: "SIGHUP ignored: new model versions load automatically" in (tmp_path / "log").read_text())
        status, content = finished(slow)
        assert (status, len(json.loads(content)["predictions"])) == (200, 1)
        assert psutil.Process(host.process.pid).children() == workers


def test_workers_exit_when_their_parent_is_killed(served_bundles: Path, tmp_path: Path) -> None:
    """They finish the accepted requests and exit, so that none still serves beside a restarted service."""
    with running_server((*GRANIAN, "--workers", "2"), served_bundles, tmp_path) as host:
        workers = psutil.Process(host.process.pid).children()
        wait_until(lambda: counted(host, "ekiben_ready_workers") == 2)
        slow = under_way(host)
        host.process.kill()
        wait_until(lambda: ask(host.port, "GET", "/readyz")[0] == 503)
        status, content = finished(slow)
        assert status == 200, content
        assert not psutil.wait_procs(workers, timeout=20)[1]


def test_workers_exit_when_their_parent_is_killed_while_they_start(served_bundles: Path, tmp_path: Path) -> None:
    env = environment(EKIBEN_BUNDLES=str(served_bundles), BENTOML_HOME=str(tmp_path))
    command = [*GRANIAN, "--port", str(free_port()), "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parent = psutil.Process(process.pid)
    wait_until(lambda: len(parent.children()) == 2)
    workers = parent.children()
    process.kill()
    process.wait(timeout=20)
    wait_until(lambda: all(ended(worker) for worker in workers))


@pytest.mark.parametrize("slow", [True, False], ids=["on its thread", "on its event loop"])
def test_a_worker_with_an_endless_request_is_replaced(slow: bool, tmp_path: Path) -> None:
    """A request whose computation never ends blocks the only thread of a worker, or its event loop."""
    files = {MODEL: endless_graph(num_turns=20_000 if slow else 1)}
    bundle = open_bundle(tmp_path / "drafts" / NAME / publish(tmp_path / "drafts", 0, files=files))
    root = tmp_path / "bundles"
    publish(root, 0, files=files | request_file(bundle, request_body("image-classifier")))
    with running_server(
        GRANIAN, root, tmp_path, EKIBEN_THREADS="1", EKIBEN_HANG_S="2", EKIBEN_HEARTBEAT_S="60"
    ) as host:
        (worker,) = psutil.Process(host.process.pid).children()
        wait_until(lambda: classify(host.port)[0] == 200)
        white = json.dumps({"model": NAME, "images": [[[255] * 4] * 4]})
        with socket.create_connection(("127.0.0.1", host.port)) as client:
            client.sendall(
                f"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                f"content-length: {len(white)}\r\n\r\n{white}".encode()
            )
            wait_until(lambda: ended(worker))
        wait_until(lambda: classify_status(host.port) == 200)
    assert "killing this process" in (tmp_path / "log").read_text()


def classify_status(port: int) -> int:
    """The status of a request, or 0 while no process listens on the port."""
    try:
        return classify(port)[0]
    except OSError:
        return 0
