"""Install the environments of the peers and run their servers; a server is stopped with all its descendants."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil

from benchmarks.peers.registry import Peer

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = ROOT / ".peers"


class PeerError(Exception):
    """A peer cannot be installed or started, or its responses are incorrect; the other peers are still measured."""


def install(name: str) -> Path:
    """Return the Python of the environment, and create it again when its requirements have changed."""
    folder, requirements = ENVIRONMENTS / name, REQUIREMENTS / f"{name}.txt"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"installing {name} into {folder.relative_to(ROOT)}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(f"the installation failed: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
    stamp.write_text(digest)
    return python


def versions(environment: str) -> dict[str, str]:
    lines = (REQUIREMENTS / f"{environment}.txt").read_text().split()
    return dict(line.split("==") for line in lines if "==" in line)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One launch of a peer, in its own process group and scratch folder; its log is kept for error messages."""

    def __init__(self, peer: Peer, *, workers: int, models: Mapping[str, Path], bundles: Path) -> None:
        self.port = free_port()
        self._scratch = tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True)
        self._log = Path(self._scratch.name) / "output.log"
        home = Path(self._scratch.name) / "h"
        home.mkdir()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PEER_PORT": str(self.port),
            "PEER_WORKERS": str(workers),
            "PEER_VARIANT": peer.variant,
            "PEER_HOME": str(home),
            "PEER_MODELS": json.dumps({name: str(path) for name, path in models.items()}),
        }
        placeholders = {"python": sys.executable, "port": self.port, "workers": workers, "bundles": bundles.resolve()}
        self.environment |= {key: value.format(**placeholders) for key, value in peer.settings.items()}
        if peer.module:
            python = install(peer.environment)
            self.command = [str(python), "-m", f"benchmarks.peers.servers.{peer.module}"]
            self.environment["PATH"] = f"{python.parent}:{os.environ['PATH']}"
        else:
            self.command = [word.format(**placeholders) for word in peer.command]
        self._root: psutil.Popen | None = None
        self._known: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._root = psutil.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Terminate the server, wait, then kill its remaining descendants."""
        assert self._root
        self.processes()
        with contextlib.suppress(psutil.NoSuchProcess):
            self._root.terminate()
        psutil.wait_procs([self._root], timeout=15)
        psutil.wait_procs(list(self._known), timeout=3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._root.pid, signal.SIGKILL)
        for process in self._known:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(list(self._known), timeout=5)
        self._scratch.cleanup()

    def processes(self) -> set[psutil.Process]:
        """The server and its descendants, including those seen earlier whose parent has exited."""
        assert self._root
        with contextlib.suppress(psutil.NoSuchProcess):
            self._known |= {psutil.Process(self._root.pid), *self._root.children(recursive=True)}
        return {process for process in self._known if process.is_running()}

    def cpu_s(self) -> float:
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def is_running(self) -> bool:
        return self._root is not None and self._root.poll() is None

    def last_log_line(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:200] if lines else "its log is empty"
