"""Real servers, started as a user starts them, each in a process of its own."""

import asyncio
import contextlib
import http.client
import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.engine.process import parent_death

ROOT = Path(__file__).parents[2]
SERVE = (str(Path(sys.executable).parent / "bentoml"), "serve", "service.app:Ekiben")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ends_with_parent(command: Sequence[str]) -> list[str]:
    """The command, run so that the kernel terminates it when the thread that started it ends in any way."""
    code = "import os, signal, sys\nsignal_on_parent_death(signal.SIGTERM)\nos.execvp(sys.argv[1], sys.argv[1:])\n"
    return [sys.executable, "-SEc", inspect.getsource(parent_death) + code, *command]


def environment(**changes: str) -> dict[str, str]:
    """The environment of this process with these changes, and without any setting that the test did not make.

    A server ends at once: only tests of the drain want requests to be answered after SIGTERM.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EKIBEN_", "BENTOML_"))}
    return {**inherited, "BENTOML_DO_NOT_TRACK": "True", "EKIBEN_DRAIN_S": "0", **changes}


@dataclass(frozen=True, kw_only=True)
class ServerProcess:
    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Iterator[str]:
    """Run the command on a free port, wait until the server is ready, yield its address, then stop it."""
    with start(command, env=env, cwd=cwd, log=log) as server:
        yield server.address


@contextlib.contextmanager
def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    timeout_s: float = 120,
    status: int = 200,
    port: int | None = None,
) -> Iterator[ServerProcess]:
    """Like `serving`, but yield the process too, as soon as /readyz answers with `status`."""
    port = port or free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ends_with_parent([*command, "--host", "127.0.0.1", "--port", str(port)]),
            cwd=cwd,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = ServerProcess(process=process, port=port)
    try:
        _wait_for_status(status, server, log, timeout_s)
        yield server
    finally:
        _stop(process)


def _wait_for_status(status: int, server: ServerProcess, log: Path, timeout_s: float) -> None:
    end, body = time.monotonic() + timeout_s, "no response"
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise AssertionError(f"the server exited with {server.process.returncode}:\n{log.read_text()[-4000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            if response.status == status:
                return
            body = response.read().decode()
        time.sleep(0.1)
    raise AssertionError(
        f"/readyz did not return {status} within {timeout_s} s, but {body}:\n{log.read_text()[-4000:]}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the server; kill its process group, which holds nothing else, if it does not exit."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def eventually(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Let the event loop run until the condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)
