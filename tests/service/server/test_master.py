"""Workers that die are replaced, and only their own requests are lost."""

import http.client
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from granian.server.common import AbstractServer, AbstractWorker
from granian.server.mp import MPServer, WorkerProcess

from tests.e2e.serving import ROOT, ServerProcess, environment
from tests.service.hosts import GRANIAN, classify, counted, counted_or_nothing, running_server, wait_until


@pytest.fixture
def granian(served_bundles: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    with running_server((*GRANIAN, "--workers", "2"), served_bundles, tmp_path) as started:
        wait_until(lambda: counted_or_nothing(started) == 2)
        yield started


def test_a_killed_worker_loses_only_its_own_requests(granian: ServerProcess) -> None:
    """With two workers no new connection fails, and the killed worker is replaced."""
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
            wait_until(lambda: not victim.is_running())  # the master has reaped it
            reaped_at = time.monotonic()
            wait_until(lambda: counted_or_nothing(granian) == 2)
            time.sleep(1)
        finally:
            stop.set()
    for future in asking:
        future.result()
    assert sum(began <= killed for began in lost) <= 4  # what was in flight
    assert all(began <= reaped_at for began in lost)  # or met the socket of a process that was just dying
    assert min(time_ for time_ in answered if time_ > killed)
    assert victim.pid not in {child.pid for child in parent.children()}
    assert len(parent.children()) == 2
    wait_until(lambda: counted(granian, "ekiben_ready_workers") == 2)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_without_a_shared_folder_the_service_serves_and_says_so_once(
    num_workers: int, served_bundles: Path, tmp_path: Path
) -> None:
    code = "from service.engine.process import identity\nidentity.shared_folder = lambda host: None\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    command = (*GRANIAN, "--workers", str(num_workers))
    with running_server(command, served_bundles, tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}") as host:
        assert classify(host.port)[0] == 200
    log = (tmp_path / "log").read_text()
    assert log.count("there is no private temporary folder; each worker proves every version itself") == 1
    assert log.count("metrics cover one worker each") == num_workers - 1


def test_the_folder_of_the_workers_ends_with_the_master(served_bundles: Path, tmp_path: Path) -> None:
    with running_server(GRANIAN, served_bundles, tmp_path, TMPDIR=str(tmp_path)) as host:
        (folder,) = tmp_path.glob("ekiben-*")
        assert len(list(folder.glob("*.outcome"))) == len(list(served_bundles.iterdir()))
        assert f"-{host.process.pid}-" in folder.name
    assert list(tmp_path.glob("ekiben-*")) == []


def test_granian_still_has_the_methods_that_are_overridden_and_called() -> None:
    """They are private: a new version of granian may change them without notice."""
    assert list(inspect.signature(MPServer._spawn_worker).parameters) == ["self", "idx", "target", "callback_loader"]
    assert list(inspect.signature(AbstractServer._serve_loop).parameters) == ["self", "spawn_target", "target_loader"]
    respawn = inspect.signature(AbstractServer._respawn_workers)
    assert list(respawn.parameters) == ["self", "workers", "spawn_target", "target_loader", "delay"]
    loop, shutdown = inspect.getsource(AbstractServer._serve_loop), inspect.getsource(AbstractServer.shutdown)
    for name in ("main_loop_interrupt", "interrupt_signal", "interrupt_children", "wrks", "respawned_wrks"):
        assert f"self.{name}" in loop, name
    assert "self._stop_workers()" in shutdown, "ends the workers that did not drain"
    worker = inspect.getsource(AbstractWorker) + inspect.getsource(WorkerProcess)
    for name in ("birth", "idx", "inner", "interrupt_by_parent"):
        assert f"self.{name} = " in worker, name


# In a process of its own, because bentoml warns when it is imported.
GPUS_OF_WORKERS = """
import sys
from granian.server.mp import MPServer
from service.server.master import Master
from service.server.worker import start_worker
from service.settings import Settings

MPServer._spawn_worker = lambda _self, _number, _target, loader: loader.keywords["gpu"]
master = Master.__new__(Master)
master._settings, master.workers = Settings(device=sys.argv[1]), 3
print([master._spawn_worker(number, None, start_worker) for number in range(3)])
"""


@pytest.mark.parametrize(("device", "expected"), [("auto", "['3', '5', '3']"), ("cpu", "[None, None, None]")])
def test_each_worker_has_one_of_the_visible_gpus(device: str, expected: str) -> None:
    """The same one when it is replaced: a worker is spawned with its number."""
    command = [sys.executable, "-W", "ignore", "-c", GPUS_OF_WORKERS, device]
    env = environment(CUDA_VISIBLE_DEVICES="3,5", PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == expected, done.stderr
