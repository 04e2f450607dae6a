"""A real server as a user starts it, in a process of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
SERVE = (str(Path(sys.executable).parent / "bentoml"), "serve", "service.app:Ekiben")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**changes: str) -> dict[str, str]:
    """Ours without settings of the service that a test did not make."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("EKIBEN_", "BENTOML_"))}
    return {**outside, "BENTOML_DO_NOT_TRACK": "True", **changes}


@dataclass(frozen=True, kw_only=True)
class Started:
    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Iterator[str]:
    """Run the command with a free port, wait for readiness, yield the address, stop the process that was started."""
    with start(command, env=env, cwd=cwd, log=log) as started:
        yield started.address


@contextlib.contextmanager
def start(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, patience_s: float = 120, status: int = 200
) -> Iterator[Started]:
    """As `serving`, for those who need the process too; `status` is what /readyz is to answer first."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=cwd,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Started(process=process, port=port)
    try:
        _wait_until_it_says(status, started.address, process, log, patience_s)
        yield started
    finally:
        _stop(process)


def _wait_until_it_says(
    status: int, address: str, process: subprocess.Popen[bytes], log: Path, patience_s: float
) -> None:
    until, said = time.monotonic() + patience_s, "nothing"
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{address}/readyz", timeout=5)
            if answer.status_code == status:
                return
            said = answer.text
        time.sleep(0.2)
    raise AssertionError(f"no {status} after {patience_s} s, it says {said}:\n{log.read_text()[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The process group is the server's own: it was started as a session."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def until(condition: Callable[[], bool], patience_s: float = 60) -> None:
    """Wait, and let the event loop run, until it holds."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)
