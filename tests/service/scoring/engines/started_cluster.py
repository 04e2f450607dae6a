"""A Ray cluster of one node, as `ray start` starts it, with a token and folder of its own."""

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.serving import free_port

# Ray gives a node 30 s to start; a machine that runs other tests may need a second try.
TRIES = 3
# What the nodes inherit: no addresses of other clusters, no credentials of a store.
FOREIGN = ("AWS_", "RAY_ADDRESS")


@contextmanager
def ray_environment() -> Iterator[dict[str, str]]:
    """Environment variables with which Ray neither finds nor may join another cluster of this machine.

    The folder has a short name, because Ray has sockets in it, whose paths are limited to 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def started_cluster(environment: Mapping[str, str], *, num_cpus: int) -> Iterator[str]:
    """Start a cluster and return its address; `environment` is that of `ray_environment`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    for remaining in reversed(range(TRIES)):
        folder = Path(tempfile.mkdtemp(dir=environment["RAY_TMPDIR"]))
        port = free_port()
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--port", str(port)]
        command += ["--ray-client-server-port", str(free_port()), "--dashboard-agent-listen-port", str(free_port())]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--include-dashboard", "false"]
        command += ["--num-cpus", str(num_cpus), "--temp-dir", str(folder), "--disable-usage-stats"]
        with (folder / "log").open("w") as log:
            process = psutil.Popen(command, cwd=folder, env={**inherited, **environment}, stdout=log, stderr=log)
        try:
            if _is_running(process, folder / "log"):
                yield f"127.0.0.1:{port}"
                return
            if not remaining:
                pytest.fail((folder / "log").read_text())
        finally:
            _stop(process, folder)
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: psutil.Popen, log: Path) -> bool:
    """Wait until the cluster runs, or the command has failed."""
    while process.poll() is None:
        # The last lines say that it waits for the end of its processes.
        if "--block" in log.read_text():
            return True
        time.sleep(0.1)
    return False


def _stop(process: psutil.Popen, folder: Path) -> None:
    started = _processes(process, folder)
    with suppress(psutil.NoSuchProcess):
        process.terminate()
    for child in psutil.wait_procs(started, timeout=20)[1]:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def _processes(process: psutil.Popen, folder: Path) -> list[psutil.Process]:
    """The command, what it has started, and what it has left behind: those name the folder, which is no other's."""
    found = {process}
    with suppress(psutil.NoSuchProcess):
        found |= set(process.children(recursive=True))
    for other in psutil.process_iter(["cmdline"]):
        if any(str(folder) in argument for argument in other.info["cmdline"] or ()):
            found.add(other)
    return list(found)
