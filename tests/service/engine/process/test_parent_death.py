"""A process is told by the kernel that its parent has ended; a system that cannot do that is no error."""

import ctypes
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from service.engine.process.parent_death import signal_on_parent_death
from tests.service.hosts import ended, wait_until

CODE = """
import os, signal, sys, time
from service.engine.process.parent_death import signal_on_parent_death
pid = os.fork()
if pid:
    print(pid, flush=True)
    time.sleep(60)
print("ready" if signal_on_parent_death(signal.SIGKILL) is True else "never", flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_its_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        lines = {parent.stdout.readline().strip() for _ in range(2)}
        assert "ready" in lines
        child = psutil.Process(int(next(iter(lines - {"ready"}))))
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: ended(child))


def test_a_system_without_prctl_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert signal_on_parent_death(signal.SIGTERM) is False
