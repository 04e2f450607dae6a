"""One worker process of the production host, from its start to its drain.

Invariant: on SIGTERM or Ctrl-C a worker reports at once that it is not ready, and answers as before until load
balancers have had time to notice. Then it refuses new requests, but answers those that it admitted. It ends within the
grace period whatever hangs, and answers until it has closed its port.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from granian.asgi import LifespanProtocol

from service.app import Ekiben, running, watch_connections
from service.engine.process.parent_death import signal_on_parent_death
from service.engine.process.watchdog import Watchdog, kill
from service.http.granian import pre_admission
from service.http.granian.rsgi import answer
from service.http.router import Router
from service.http.routes.metrics import collect_samples
from service.http.telemetry.multiprocess import MultiprocessMetrics
from service.settings import Settings
from service.tuning import tune_worker

DRAIN_SIGNAL = signal.SIGUSR1  # from the master
READY_TIMEOUT_S = 30
# While a worker ends: without a request for so long, it closes its connections; clients that never pause are cut off.
QUIET_S, MAX_REFUSING_S = 0.2, 1.0


def start_worker(
    *,
    parent: int,
    settings: Settings,
    folder: Path | None,
    num_workers: int,
    address: str,
    port: int,
    core: int | None,
    gpu: str | None = None,
    waits: bool = False,
) -> Any:
    """Turn this process into a worker; `folder` is shared by all workers of the master, unless there is none.

    `address` is also that of the gRPC port, if the settings have one. `gpu` names the only GPU that the worker may use,
    or is None if there is no choice. A worker that `waits` opens its port when it is ready, because another worker
    serves until then.
    """
    # A killed master cannot send it.
    signal_on_parent_death(DRAIN_SIGNAL)
    if os.getppid() != parent:
        sys.exit(1)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA reads it at its first call, which comes later
    tune_worker(core)
    Ekiben.inner.host_folder, Ekiben.inner.num_workers = folder, num_workers  # type: ignore[attr-defined]
    router: Router = Ekiben.to_asgi()  # type: ignore[attr-defined]
    pre_admission.install(router)
    return Worker(router, settings, None if num_workers == 1 else folder, address=address, port=port, waits=waits)


class GrpcPort(Protocol):
    """The part of the gRPC server that its worker uses once it has started it."""

    async def stop(self) -> None:
        """Close the port."""


class Worker:
    """An RSGI application; `shared` is the folder of the metrics of all workers, if there are several."""

    def __init__(
        self,
        router: Router,
        settings: Settings,
        shared: Path | None,
        *,
        address: str,
        port: int,
        waits: bool = False,
    ) -> None:
        self._address, self._port = address, port
        self._waits = waits
        self._grpc: GrpcPort | None = None
        self._router = router
        self._settings = settings
        self._shared = shared
        self._lifespan = LifespanProtocol(router.app)
        self._tasks: list[asyncio.Task[Any]] = []

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._start())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        for task in self._tasks:
            task.cancel()
        if self._grpc is not None:
            loop.run_until_complete(self._grpc.stop())
        loop.run_until_complete(self._lifespan.shutdown())

    def __rsgi__(self, scope: Any, protocol: Any) -> Coroutine[Any, Any, None]:
        return answer(self._router, scope, protocol)

    async def _start(self) -> None:
        await self._lifespan.startup()
        if self._lifespan.exc is not None:
            raise self._lifespan.exc
        loop, service = asyncio.get_running_loop(), running()
        for number in (DRAIN_SIGNAL, signal.SIGINT):  # a terminal sends Ctrl-C to workers too
            loop.add_signal_handler(number, self._begin_drain)
        Watchdog(loop, service.runner.progress_token, self._settings.hang_s, kill).start()
        watch_connections(self._router, self._settings).start(self._port)
        if self._shared is not None:
            service.multiprocess_metrics = MultiprocessMetrics(self._shared)
            self._tasks.append(loop.create_task(service.multiprocess_metrics.run(partial(collect_samples, service))))
            marker = self._shared / "served"
            self._tasks.append(loop.create_task(_mark_when_ready(service, marker)))
            self._waits = self._waits or marker.exists()
        # A replacement opens its port when it is ready, because the others serve until then; after 30 s it opens its
        # port anyway, and reports why it is not ready.
        end = loop.time() + READY_TIMEOUT_S
        while self._waits and not service.repository.ready and loop.time() < end:
            await asyncio.sleep(0.05)
        if self._settings.grpc_port:
            # Its packages are optional, and must not be loaded before the master forks.
            from service.grpc.server import GrpcServer  # noqa: PLC0415

            self._grpc = GrpcServer(service, access=self._router.access, rollout=self._router.rollout)
            await self._grpc.start(self._address, self._settings.grpc_port, self._settings.tls)

    def _begin_drain(self) -> None:
        service = running()
        if not service.draining:
            service.draining = True
            self._tasks.append(asyncio.create_task(self._drain(service)))

    async def _drain(self, service: Ekiben) -> None:
        """Answer for a while, so that load balancers notice; then refuse, and end when those admitted are answered."""
        await asyncio.sleep(self._settings.drain_s)
        service.closing = True
        metrics, loop = service.request_metrics, asyncio.get_running_loop()
        # A client that has just had an answer may be sending its next request, which is to be refused, not cut off.
        begin = quiet_since = loop.time()
        answered = -1
        while metrics.in_flight or loop.time() < min(quiet_since + QUIET_S, begin + MAX_REFUSING_S):
            if metrics.num_responses != answered:
                answered, quiet_since = metrics.num_responses, loop.time()
            await asyncio.sleep(0.01)
        if self._grpc is not None:
            await self._grpc.stop()
        os.kill(os.getpid(), signal.SIGTERM)  # granian closes the port and ends the application


async def _mark_when_ready(service: Ekiben, marker: Path) -> None:
    """Tell later workers that a worker has been ready."""
    while not service.repository.ready:
        await asyncio.sleep(0.05)
    marker.touch()
