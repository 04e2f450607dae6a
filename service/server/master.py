"""The master process of the production host: it starts the workers, replaces those that die, and ends them.

Workers are granian's: processes that share a port. This is the only module that overrides private methods of granian's
server, `_spawn_worker` and `_serve_loop`; tests/service/server/test_master.py fails if granian changes them.
"""

import logging
import math
import os
import shutil
import time
from functools import partial
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.mp import MPServer, WorkerProcess

from service.container.limits import body_budget_problem
from service.engine.gpu.visible import gpu_of_worker
from service.engine.process.identity import shared_folder
from service.engine.repository.load_records import warn_unshared
from service.server.renewal import CertificateWatch, listens
from service.server.worker import DRAIN_SIGNAL, start_worker
from service.settings import Settings
from service.tls_files import TlsFiles
from service.tuning import core_of_worker

MAX_ACCEPTED = 1 << 20  # connections of one worker: ConnectionWatch limits them, and granian would stop accepting
KILL_TIMEOUT_S = 3  # for a drained worker to close everything
RENEWAL_TIMEOUT_S = 60  # for a worker to listen that replaces one with an old certificate

log = logging.getLogger(__name__)


class Master(MPServer):
    """Workers are forked, with the application already imported."""

    def __init__(self, settings: Settings, *, address: str, port: int, workers: int) -> None:
        super().__init__(
            "service.app:Ekiben",
            address=address,
            port=port,
            workers=workers,
            interface=Interfaces.RSGI,
            # To detect the protocol, granian would wait for the first byte without a time limit.
            http=HTTPModes.http1,
            websockets=False,
            backlog=2048,
            backpressure=MAX_ACCEPTED,
            # granian's limit for idle connections is its limit for a head, which ConnectionWatch sets lower.
            http1_settings=HTTP1Settings(header_read_timeout=math.ceil(settings.keep_alive_s * 1e3)),
            respawn_failed_workers=True,
            respawn_interval=0,
            workers_kill_timeout=KILL_TIMEOUT_S,
            **({} if settings.tls is None else _tls_options(settings.tls)),
        )
        self._settings = settings
        self._renews = False  # the files of TLS have changed

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        folder = shared_folder(os.getpid())
        if folder is None:
            warn_unshared("there is no private temporary folder")
            if self.workers > 1:
                log.warning("metrics cover one worker each")
        loader = partial(
            start_worker,
            parent=os.getpid(),
            settings=self._settings,
            folder=folder,
            num_workers=self.workers,
            address=self.bind_addr,
            port=self.bind_port,
        )
        if problem := body_budget_problem(self._settings.body_budget_bytes, self.workers):
            log.warning(problem)
        if self._settings.tls is not None:
            CertificateWatch(self._settings.tls, self._request_renewal).start()
        try:
            self.serve(target_loader=loader, wrap_loader=False)
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def signal_handler_reload(self, *_: Any) -> None:
        """Ignore SIGHUP: granian would end all workers before it starts new ones."""
        log.info("SIGHUP ignored: new model versions load automatically; restart to change settings")

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> WorkerProcess:  # type: ignore[override]
        gpu = None if self._settings.device == "cpu" else gpu_of_worker(idx)
        loader = partial(callback_loader, core=core_of_worker(idx, self.workers), gpu=gpu)
        return super()._spawn_worker(idx, target, loader)

    def _serve_loop(self, *spawning: Any) -> None:
        """Replace workers until a signal arrives, then drain them within the grace period; granian ends what is left.

        A worker that was killed is replaced however often that happens. The service ends if a replacement cannot start.
        granian's own loop gives up in both cases, and may miss one of two workers that die at once.
        """
        try:
            while True:
                self.main_loop_interrupt.wait()
                self.main_loop_interrupt.clear()
                if self.interrupt_signal:
                    return
                if self._renews:
                    self._renews = False
                    self._renew_workers(*spawning)
                dead = [worker for worker in self.wrks if not worker.is_alive()]
                if any(self._is_crash_loop(worker) for worker in dead):
                    return  # granian reports the worker and exits with an error
                self.interrupt_children.clear()
                for worker in dead:  # 0.5 s at least from the start of one to that of its replacement
                    time.sleep(max(worker.birth + 0.5 - time.monotonic(), 0))
                    self._respawn_workers([worker.idx], *spawning)
        finally:
            end = time.monotonic() + max(self._settings.grace_s - KILL_TIMEOUT_S, 0)
            for worker in self.wrks:
                worker.interrupt_by_parent = True
                if worker.is_alive():
                    os.kill(worker.inner.pid, DRAIN_SIGNAL)
            for worker in self.wrks:
                worker.join(max(end - time.monotonic(), 0))

    def _request_renewal(self) -> None:
        self._renews = True
        self.main_loop_interrupt.set()

    def _renew_workers(self, target: Any, callback_loader: Any) -> None:
        """Replace every worker by one with the files of TLS of now, which listens before its predecessor ends."""
        for idx, old in enumerate(self.wrks):
            new = self._spawn_worker(idx, target, partial(callback_loader, waits=True))
            new.start()
            end = time.monotonic() + RENEWAL_TIMEOUT_S
            while not listens(new.inner.pid, self.bind_port):
                if self.interrupt_signal or not new.is_alive() or time.monotonic() > end:
                    log.error("worker-%d was not replaced, and keeps the certificate of before", idx + 1)
                    new.kill()
                    return
                time.sleep(0.05)
            self.wrks[idx] = new
            # Its port is closed at once, its connections when their requests are answered.
            old.terminate()
            old.join(self._settings.grace_s)
            if old.is_alive():
                old.kill()

    def _is_crash_loop(self, worker: WorkerProcess) -> bool:
        """True if a replacement exited with an error so soon after its start that another would fail too."""
        age_s = time.monotonic() - self.respawned_wrks.get(worker.idx, float("-inf"))
        return worker.inner.exitcode > 0 and age_s < 5.5  # a negative code: killed by a signal


def _tls_options(tls: TlsFiles) -> dict[str, Any]:
    return {
        "ssl_cert": tls.cert,
        "ssl_key": tls.key,
        "ssl_ca": tls.client_ca,
        "ssl_client_verify": tls.client_ca is not None,
        "ssl_protocol_min": SSLProtocols.tls12,
    }
