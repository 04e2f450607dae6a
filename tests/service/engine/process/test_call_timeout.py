"""A call that hangs is abandoned; any other call behaves like a direct one."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from service.engine.process.call_timeout import CallTimeoutError, call_with_timeout


class Argument:
    """An argument that can be referenced weakly."""


def test_arguments_and_results_are_passed_on() -> None:
    assert call_with_timeout(20, divmod, 7, 3) == (2, 1)


def test_an_exception_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        call_with_timeout(20, divmod, 7, 0)


def test_a_panic_is_raised_as_an_error() -> None:
    """A panic of a Rust library is not an Exception and would end the calling thread."""

    class Panic(BaseException):
        pass

    def panic() -> None:
        raise Panic("index out of bounds")

    with pytest.raises(RuntimeError, match="Panic: index out of bounds"):
        call_with_timeout(20, panic)


def test_a_call_that_hangs_is_abandoned() -> None:
    gate = threading.Event()
    with pytest.raises(CallTimeoutError, match=r"no result within 0\.05 s"):
        call_with_timeout(0.05, gate.wait, 60)
    threads = [thread for thread in threading.enumerate() if thread.name == "call-with-timeout-wait"]
    assert all(thread.daemon for thread in threads), "the thread would keep the process from ending"
    gate.set()
    for thread in threads:
        thread.join(20)


def test_a_failed_call_keeps_no_argument_alive() -> None:
    def fail(argument: Argument) -> None:
        raise ValueError(str(argument))

    argument = Argument()
    alive = weakref.ref(argument)
    with contextlib.suppress(ValueError):
        call_with_timeout(20, fail, argument)
    del argument
    assert alive() is None


def test_a_call_that_fails_after_its_timeout_keeps_no_argument_alive() -> None:
    gate = threading.Event()

    def fail_late(argument: Argument) -> None:
        gate.wait(60)
        raise ValueError(str(argument))

    argument = Argument()
    alive = weakref.ref(argument)
    with pytest.raises(CallTimeoutError):
        call_with_timeout(0.05, fail_late, argument)
    del argument
    assert alive() is not None
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "call-with-timeout-fail_late":
            thread.join(20)
    assert alive() is None


STOPPED = """
import time
from service.engine.process.call_timeout import call_with_timeout

def work():
    for step in range(20):
        time.sleep(0.02)
        if step == 4:
            print("begun", flush=True)

call_with_timeout(2.0, work)
print("done")
"""


def test_time_while_the_process_is_stopped_does_not_count() -> None:
    child = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    child.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    child.send_signal(signal.SIGCONT)
    assert child.communicate(timeout=60)[0] == "done\n"
