"""Certificates that are renewed while the service runs.

granian reads the files of TLS when a worker starts, so a renewed certificate needs new workers: the master starts them
one after the other when the files have changed. Invariant: files that cannot be loaded replace no worker.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service.tls_files import TlsFiles

POLL_S = 1.0
LISTEN = "0A"  # the state of a socket, as the kernel's tables write it

log = logging.getLogger(__name__)


class CertificateWatch:
    """Calls `on_renewal` on a thread of its own when the files have changed and can be loaded."""

    def __init__(self, files: TlsFiles, on_renewal: Callable[[], None]) -> None:
        self._files = files
        self._on_renewal = on_renewal
        self._stamp = files.stamp()

    def start(self) -> None:
        threading.Thread(target=self._poll, name="certificate-watch", daemon=True).start()

    def check(self) -> None:
        """Compare the files with those of before."""
        try:
            stamp = self._files.stamp()
        except OSError:  # they are being replaced
            return
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._files.check()
        except ValueError as error:  # half of the files may be new: the other half changes the stamp again
            log.error("%s; the certificate of before stays in use", error)
            return
        log.info("%s has changed: the workers are replaced one after the other", self._files.cert)
        self._on_renewal()

    def _poll(self) -> None:
        while True:
            time.sleep(POLL_S)
            self.check()


def listens(pid: int, port: int) -> bool:
    """Return whether the process has a socket that listens on the port."""
    listening = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_ = fields = line.split()
                if state == LISTEN and int(local.rpartition(":")[2], 16) == port:
                    listening.add(f"socket:[{fields[9]}]")
    held = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                held.add(str(link.readlink()))
    return bool(held & listening)
