"""A call that hangs is given up; one that does not behaves as if it were made here."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from service.engine.process.call_timeout import HungError, bounded


class Thing:
    """Something whose life can be watched."""


def test_results_and_arguments_go_through() -> None:
    assert bounded(20, divmod, 7, 3) == (2, 1)


def test_what_is_raised_goes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        bounded(20, divmod, 7, 0)


def test_a_panic_is_raised_as_an_error() -> None:
    """Libraries in Rust raise what is no Exception, and would end the thread that asked."""

    class Panic(BaseException):
        pass

    def panic() -> None:
        raise Panic("index out of bounds")

    with pytest.raises(RuntimeError, match="Panic: index out of bounds"):
        bounded(20, panic)


def test_a_call_that_hangs_is_given_up() -> None:
    gate = threading.Event()
    with pytest.raises(HungError, match=r"no result within 0\.05 s"):
        bounded(0.05, gate.wait, 60)
    hanging = [thread for thread in threading.enumerate() if thread.name == "bounded-wait"]
    assert all(thread.daemon for thread in hanging), "it would keep the process from ending"
    gate.set()
    for thread in hanging:
        thread.join(20)


def test_a_failed_call_keeps_nothing_alive() -> None:
    def fail(thing: Thing) -> None:
        raise ValueError(str(thing))

    thing = Thing()
    alive = weakref.ref(thing)
    with contextlib.suppress(ValueError):
        bounded(20, fail, thing)
    del thing
    assert alive() is None


def test_a_call_that_fails_after_it_was_given_up_keeps_nothing_alive() -> None:
    gate = threading.Event()

    def fail_late(thing: Thing) -> None:
        gate.wait(60)
        raise ValueError(str(thing))

    thing = Thing()
    alive = weakref.ref(thing)
    with pytest.raises(HungError):
        bounded(0.05, fail_late, thing)
    del thing
    assert alive() is not None
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "bounded-fail_late":
            thread.join(20)
    assert alive() is None


STOPPED = """
import time
from service.engine.process.call_timeout import bounded

def work():
    for step in range(20):
        time.sleep(0.02)
        if step == 4:
            print("begun", flush=True)

bounded(2.0, work)
print("done")
"""


def test_a_process_that_was_stopped_for_a_while_hangs_no_call() -> None:
    child = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    child.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    child.send_signal(signal.SIGCONT)
    assert child.communicate(timeout=60)[0] == "done\n"
