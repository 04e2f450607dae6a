"""Run functions in child processes that start in milliseconds and may crash, hang or be killed.

A zygote is a process that has imported what the functions need and forks a child for each job. It is a fresh process:
it has no threads, no sessions and no sockets of the process that started it. What passes between the processes is JSON,
because a child may run hostile native code. Invariant: a child ends with its job, with the process that waits for it,
and with the zygote.

    parent --- control socket: one descriptor per job ---> zygote --- fork ---> child
       \\------------------ job socket: the call; progress, result; exit status ------/
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from service.engine.process.call_timeout import NUM_CHECKS, CallTimeoutError
from service.engine.process.parent_death import signal_on_parent_death

IDLE_S = 60.0  # without a job, the zygote exits and frees its memory; the next job starts another
MAX_MESSAGE_BYTES = 1 << 16
PRELOAD = ("service.engine.repository.prover", "service.tasks.replay")  # what the children of the service need
Message = dict[str, Any]


class ChildError(RuntimeError):
    """A child that ended before it answered; `signal_number` is None if it exited by itself."""

    def __init__(self, signal_number: int | None) -> None:
        name = signal.Signals(signal_number).name if signal_number else "nothing"
        super().__init__(f"ended by {name}" if signal_number else "exited without an answer")
        self.signal_number = signal_number


class ZygoteLostError(OSError):
    """The zygote ended, or could not start a child."""


class Job:
    """One function in one child; closing it kills the child."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def receive(self, timeout_s: float) -> Message:
        """Return the next message; raises CallTimeoutError, ChildError or ZygoteLostError."""
        # Time in which this process was stopped does not count.
        self._channel.settimeout(timeout_s / NUM_CHECKS)
        for _ in range(NUM_CHECKS):
            try:
                content = self._channel.recv(MAX_MESSAGE_BYTES)
                break
            except TimeoutError:
                continue
            except ConnectionError as error:
                raise ZygoteLostError("the process that starts children ended") from error
        else:
            raise CallTimeoutError(f"no result within {timeout_s:g} s")
        if not content:
            raise ZygoteLostError("the process that starts children ended")
        message: Message = json.loads(content)
        if "status" in message:
            code = message["status"]
            if code is None:
                raise ZygoteLostError("the process that starts children could not start one")
            raise ChildError(os.WTERMSIG(code) if os.WIFSIGNALED(code) else None)
        return message

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Zygote:
    """The parent's side of a zygote that imports the modules `preload`; processes that are forked later share it."""

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the process, which then imports in parallel to the caller; does nothing if one was started."""
        with self._lock:
            if self._control is None:
                self._control = _spawn(self._preload)

    def run(self, function: Callable[..., Message], **arguments: Any) -> Job:
        """Call `function(report, **arguments)` in a child. Messages of the job: what it reports, then what it returns.

        The function is importable, and the arguments are JSON. Raises OSError if no zygote can be started.
        """
        content = json.dumps([reference(function), arguments]).encode()
        for attempt in range(2):  # a zygote that has ended, such as an idle one, is replaced
            self.start()
            control = self._control
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                assert control is not None
                ours.sendall(content)
                socket.send_fds(control, [b"j"], [theirs.fileno()])
            except (BrokenPipeError, ConnectionError):
                ours.close()
                self._discard(control)
                if attempt:
                    raise
            else:
                return Job(ours)
            finally:
                theirs.close()
        raise AssertionError

    def close(self) -> None:
        """End the zygote, unless another process shares it."""
        self._discard(self._control)

    def _discard(self, control: socket.socket | None) -> None:
        with self._lock:
            if control is not None and control is self._control:
                control.close()
                self._control = None


@functools.cache
def shared_zygote() -> Zygote:
    """The zygote of this process and of those that it forks."""
    return Zygote(PRELOAD)


def reference(function: Callable[..., Any]) -> str:
    """Return a name that `pkgutil.resolve_name` resolves to the function; raises ValueError if there is none."""
    name = f"{function.__module__}:{function.__qualname__}"
    if "<" in name:
        raise ValueError(f"{name} cannot be imported by a child process")
    return name


def _spawn(preload: Sequence[str]) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # It ends with its control socket, so it is an orphan: the children of a master are its workers. A terminal sends
    # Ctrl-C to it as well.
    code = (
        "import os, signal, sys; os.fork() and os._exit(0); signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"sys.path[:] = {sys.path!r}; "
        f"from service.engine.process.zygote import main; main({theirs.fileno()}, {preload!r})"
    )
    try:
        process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    threading.Thread(target=process.wait, name="zygote", daemon=True).start()  # leaves no zombie
    return ours


def main(control_fd: int, preload: Sequence[str]) -> NoReturn:
    """The zygote: fork a child for each descriptor that arrives, and report how each child ended."""
    for name in preload:
        importlib.import_module(name)
    gc.freeze()
    _Server(socket.socket(fileno=control_fd)).run()


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._channels: dict[int, socket.socket] = {}  # by the process id of the child
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)
        # A byte arrives here for each SIGCHLD.
        self._wakeup, writer = socket.socketpair()
        writer.setblocking(False)
        self._writer = writer
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno())
        self._poller.register(self._wakeup, select.POLLIN)

    def run(self) -> NoReturn:
        while True:
            events = self._poller.poll(IDLE_S * 1000)
            if not events and not self._channels:
                os._exit(0)
            for fd, _ in events:
                if fd == self._control.fileno():
                    self._accept()
                elif fd == self._wakeup.fileno():
                    self._wakeup.recv(4096)
                else:
                    self._kill(fd)
            self._reap()

    def _accept(self) -> None:
        try:
            message, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        except OSError:  # no descriptor is free here
            return
        if not message:  # nobody can send another job
            for pid in self._channels:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        if not fds:
            return
        channel = socket.socket(fileno=fds[0])
        try:
            pid = os.fork()
        except OSError:
            _send(channel, {"status": None})
            channel.close()
            return
        if not pid:
            self._become_child(channel)
        self._channels[pid] = channel
        self._poller.register(channel, 0)  # POLLHUP alone: the parent has closed the job, or ended

    def _become_child(self, channel: socket.socket) -> NoReturn:
        signal_on_parent_death(signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (self._control, self._wakeup, self._writer, *self._channels.values()):
            other.close()
        try:
            name, arguments = json.loads(channel.recv(MAX_MESSAGE_BYTES))
            _send(channel, pkgutil.resolve_name(name)(functools.partial(_send, channel), **arguments))
        except BaseException:  # noqa: BLE001 - the parent is told that there is no answer
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)

    def _kill(self, fd: int) -> None:
        for pid, channel in self._channels.items():
            if channel.fileno() == fd:
                self._poller.unregister(fd)
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._channels:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._channels.pop(pid) as channel:
                with contextlib.suppress(KeyError):
                    self._poller.unregister(channel)
                _send(channel, {"status": status})


def _send(channel: socket.socket, message: Message) -> None:
    """Send a message, unless the receiver has ended."""
    with contextlib.suppress(ConnectionError):
        channel.send(json.dumps(message).encode())
