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
import os, signal, time
from service.engine.process.parent_death import signal_on_parent_death
if not os.fork():
    is_known = signal_on_parent_death(signal.SIGKILL)
    os.write(1, b"%d %s\\n" % (os.getpid(), b"known" if is_known is True else b"unknown"))
time.sleep(60)
"""


def test_a_child_ends_with_its_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, known = parent.stdout.readline().split()
        assert known == "known"
        child = psutil.Process(int(pid))
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: ended(child))


def test_a_system_without_prctl_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert signal_on_parent_death(signal.SIGTERM) is False
