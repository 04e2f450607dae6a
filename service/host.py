"""granian as the host: worker processes that share a port, come back when they die, and leave in good order.

Invariant: on SIGTERM or Ctrl-C a worker says at once that it is not ready and lets nothing new in, but finishes what it
let in; it is gone within the grace period whatever hangs, and until it has closed its port it answers.
"""

import asyncio
import ctypes
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import granian._futures
from granian.asgi import LifespanProtocol
from granian.constants import HTTPModes, Interfaces
from granian.server.mp import MPServer, WorkerProcess

from service.app import Ekiben, application, running
from service.engine.process.watchdog import Watchdog, kill
from service.http.front import Front
from service.http.routes.metrics import collect_samples
from service.http.rsgi import Door, handle
from service.http.telemetry.multiprocess import MultiprocessMetrics
from service.settings import Settings

LEAVE = signal.SIGUSR1  # from the parent: drain, then end
PR_SET_PDEATHSIG = 1  # linux/prctl.h
END_S = 3  # for a worker that has drained to close everything
BREATH_S = 0.5  # from the start of a worker to that of the one that replaces it, at least
RESTLESS_S = 5.5  # from its start: a worker that ends by itself sooner cannot start
OPEN_AT_LAST_S = 30.0  # a worker that is not ready by then says itself why
SWITCH_S = 5e-4  # threads that compute, or refuse, wait that long for the interpreter at most
MAX_CONNECTIONS = 8192  # in one worker; how much of what they ask is let in is the engine's to say

log = logging.getLogger(__name__)


class Host(MPServer):
    """The parent process. Its workers are forked, with the application already imported."""

    def __init__(self, settings: Settings, *, address: str, port: int, workers: int) -> None:
        super().__init__(
            "service.app:Ekiben",
            address=address,
            port=port,
            workers=workers,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,  # to tell which is spoken, it would wait without end for a first byte
            websockets=False,
            backlog=2048,
            backpressure=MAX_CONNECTIONS,
            respawn_failed_workers=True,
            respawn_interval=0,
            workers_kill_timeout=END_S,
        )
        self._grace_s = settings.grace_s
        self._drain_s = settings.drain_s
        self._hang_s = settings.hang_s

    def run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="ekiben-") as folder:
            shared = Path(folder) if self.workers > 1 else None
            loader = partial(_load, parent=os.getpid(), drain_s=self._drain_s, hang_s=self._hang_s, shared=shared)
            self.serve(target_loader=loader, wrap_loader=False)

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> WorkerProcess:  # type: ignore[override]
        """As many workers as cores stay on one core each: a request's way through two threads wakes no other core."""
        cores = sorted(os.sched_getaffinity(0))
        core = cores[idx] if 1 < self.workers == len(cores) else None
        return super()._spawn_worker(idx, target, partial(callback_loader, core=core))

    def _serve_loop(self, *spawning: Any) -> None:
        """Replace workers that are gone, until told to end. One that was killed is replaced however often that happens.

        One that ended by itself again soon after it was replaced cannot start: then the service ends too. (granian's
        own loop gives up in both cases, and may miss one of two workers that die at once.)
        """
        while True:
            self.main_loop_interrupt.wait()
            self.main_loop_interrupt.clear()
            if self.interrupt_signal:
                return
            gone = [worker for worker in self.wrks if not worker.is_alive()]
            if any(self._cannot_start(worker) for worker in gone):
                return  # `interrupt_children` names it, so we end with an error
            self.interrupt_children.clear()
            for worker in gone:
                time.sleep(max(worker.birth + BREATH_S - time.monotonic(), 0))
                self._respawn_workers([worker.idx], *spawning)

    def signal_handler_reload(self, *_: Any) -> None:
        """granian would end workers that answer, and wait for none that follows."""
        log.info(
            "SIGHUP: nothing to do; new versions of models are served as they come, settings are read at the start"
        )

    def _cannot_start(self, worker: WorkerProcess) -> bool:
        replaced = self.respawned_wrks.get(worker.idx)
        return worker.inner.exitcode > 0 and replaced is not None and time.monotonic() - replaced < RESTLESS_S

    def _stop_workers(self) -> None:
        """Ask every worker to leave, wait for them, then end those that did not."""
        end = time.monotonic() + max(self._grace_s - END_S, 0)
        for worker in self.wrks:
            worker.interrupt_by_parent = True
            if worker.is_alive():
                os.kill(worker.inner.pid, LEAVE)
        for worker in self.wrks:
            worker.join(max(end - time.monotonic(), 0))
        super()._stop_workers()


def _load(*, parent: int, drain_s: float, hang_s: float, shared: Path | None, core: int | None) -> Any:
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # Linux
        prctl(PR_SET_PDEATHSIG, LEAVE)  # a parent that is killed can ask nobody to leave
        if os.getppid() != parent:
            sys.exit(1)
    if core is not None:
        os.sched_setaffinity(0, {core})
    sys.setswitchinterval(SWITCH_S)
    if len(os.sched_getaffinity(0)) == 1:
        with suppress(OSError):  # where that is forbidden
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # no thread interrupts another for each request
    front = application()
    granian._futures._cbsched_aioschedule = partial(Door, front)  # it has no other place for what is done at once
    return Worker(front, drain_s=drain_s, hang_s=hang_s, shared=shared)


class Worker:
    """The application in one worker, from its start to its leaving: an RSGI application."""

    def __init__(self, front: Front, *, drain_s: float, hang_s: float, shared: Path | None) -> None:
        self._front = front
        self._drain_s = drain_s
        self._hang_s = hang_s
        self._shared = shared
        self._lifespan = LifespanProtocol(front.app)
        self._tasks: list[asyncio.Task[Any]] = []

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._start())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        for task in self._tasks:
            task.cancel()
        loop.run_until_complete(self._lifespan.shutdown())

    def __rsgi__(self, scope: Any, protocol: Any) -> Coroutine[Any, Any, None]:
        return handle(self._front, scope, protocol)

    async def _start(self) -> None:
        await self._lifespan.startup()
        if self._lifespan.exc is not None:
            raise self._lifespan.exc
        self._started()
        await self._replace()

    def _started(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (LEAVE, signal.SIGINT):  # a terminal sends Ctrl-C to workers too
            loop.add_signal_handler(number, self._leave)
        host = running()
        Watchdog(loop, host.runner.progress_token, self._hang_s, kill).start()
        if self._shared is not None:
            host.multiprocess_metrics = MultiprocessMetrics(self._shared)
            self._tasks.append(loop.create_task(host.multiprocess_metrics.run(partial(collect_samples, host))))

    async def _replace(self) -> None:
        """Of several workers, one that comes later opens its port when it is ready: until then the others serve."""
        if self._shared is None:
            return
        served, host = self._shared / "served", running()
        patience = OPEN_AT_LAST_S if served.exists() else 0.0
        end = time.monotonic() + patience
        while not host.repository.ready and time.monotonic() < end:
            await asyncio.sleep(0.02)
        self._tasks.append(asyncio.create_task(self._mark(served, host)))

    async def _mark(self, served: Path, host: Ekiben) -> None:
        while not host.repository.ready:
            await asyncio.sleep(0.2)
        served.touch()

    def _leave(self) -> None:
        host = running()
        if not host.draining:
            host.draining = True
            self._tasks.append(asyncio.create_task(self._drain(host)))

    async def _drain(self, host: Ekiben) -> None:
        """Refuse for a while, so that whoever sends requests here learns of it; then end when all is answered."""
        await asyncio.sleep(self._drain_s)
        while host.request_metrics.in_flight:
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)  # the host closes the port and ends the application
