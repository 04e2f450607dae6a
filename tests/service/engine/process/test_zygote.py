"""Jobs run in children of a fresh process; whatever happens there is reported here."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.engine.process.call_timeout import CallTimeoutError
from service.engine.process.zygote import ChildError, Message, Zygote, ZygoteLostError, reference
from tests.e2e.serving import ROOT
from tests.service.engine.versions import wait_until

Report = Callable[[Message], None]


def answer(report: Report, *, number: int, text: str) -> Message:
    report({"doing": text})
    return {"number": number + 1, "pid": os.getpid(), "parent": os.getppid()}


def end_with(report: Report, *, number: int) -> Message:
    report({"doing": "ending"})
    os.kill(os.getpid(), number)
    return {}


def leave_early(report: Report) -> Message:
    os._exit(7)


def fail(report: Report) -> Message:
    raise ValueError("of the function")


def hang(report: Report) -> Message:
    report({"pid": os.getpid()})
    time.sleep(60)
    return {}


def describe(report: Report) -> Message:
    return {
        "fds": sorted(path.name for path in Path("/proc/self/fd").iterdir()),
        "modules": [m for m in sys.modules if m == "colorsys"],
    }


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    zygote = Zygote(["colorsys"])
    yield zygote
    zygote.close()


def messages(zygote: Zygote, function: Callable[..., Message], **arguments: Any) -> list[Message]:
    found = []
    with zygote.run(function, **arguments) as job:
        while "number" not in (message := job.receive(20)):
            found.append(message)
    return [*found, message]


def test_a_job_reports_and_returns(zygote: Zygote) -> None:
    first, second = messages(zygote, answer, number=1, text="é")
    assert first == {"doing": "é"}
    assert second["number"] == 2
    assert second["parent"] != os.getpid()
    *_, again = messages(zygote, answer, number=2, text="")
    assert again["parent"] == second["parent"]
    assert again["pid"] != second["pid"]


def test_jobs_run_at_the_same_time(zygote: Zygote) -> None:
    with zygote.run(hang) as first, zygote.run(hang) as second:
        pids = {first.receive(20)["pid"], second.receive(20)["pid"]}
        assert len(pids) == 2
        assert messages(zygote, answer, number=1, text="")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGXCPU])
def test_a_child_that_is_ended_by_a_signal_is_reported_after_what_it_said(zygote: Zygote, number: int) -> None:
    with zygote.run(end_with, number=int(number)) as job:
        assert job.receive(20) == {"doing": "ending"}
        with pytest.raises(ChildError, match=f"ended by {signal.Signals(number).name}") as caught:
            job.receive(20)
    assert caught.value.signal_number == number


@pytest.mark.parametrize("function", [leave_early, fail])
def test_a_child_that_ends_without_an_answer_is_reported(zygote: Zygote, function: Callable[..., Message]) -> None:
    with zygote.run(function) as job, pytest.raises(ChildError, match="exited without an answer") as caught:
        job.receive(20)
    assert caught.value.signal_number is None


def test_closing_a_job_kills_its_child(zygote: Zygote) -> None:
    with zygote.run(hang) as job:
        child = psutil.Process(job.receive(20)["pid"])
        with pytest.raises(CallTimeoutError, match=r"no result within 0\.2 s"):
            job.receive(0.2)
        assert child.is_running()
    wait_until(lambda: not child.is_running())


def test_children_end_with_the_zygote_and_it_is_replaced(zygote: Zygote) -> None:
    with zygote.run(hang) as job:
        child = psutil.Process(job.receive(20)["pid"])
        os.kill(child.ppid(), signal.SIGKILL)
        with pytest.raises(ZygoteLostError):
            job.receive(20)
        wait_until(lambda: not child.is_running())
    assert messages(zygote, answer, number=1, text="")[-1]["number"] == 2


def test_closing_the_zygote_ends_it_and_its_children(zygote: Zygote) -> None:
    with zygote.run(hang) as job:
        child = psutil.Process(job.receive(20)["pid"])
        parent = child.parent()
        assert parent is not None
        zygote.close()
        wait_until(lambda: not child.is_running() and not parent.is_running())


def test_an_idle_zygote_exits() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"from service.engine.process import zygote; zygote.IDLE_S = 0.1; zygote.main({theirs.fileno()}, ())"
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, pass_fds=[theirs.fileno()], timeout=30, check=True
        )
    assert done.returncode == 0


def test_after_a_zygote_has_ended_the_next_job_starts_another(zygote: Zygote) -> None:
    first = messages(zygote, answer, number=1, text="")[-1]["parent"]
    os.kill(first, signal.SIGTERM)
    wait_until(lambda: not psutil.pid_exists(first))
    assert messages(zygote, answer, number=1, text="")[-1]["parent"] != first


def test_a_child_has_what_was_imported_and_no_descriptor_of_this_process(zygote: Zygote) -> None:
    with zygote.run(describe) as job:
        found = job.receive(20)
    assert found["modules"] == ["colorsys"]
    assert len(found["fds"]) <= 5  # three standard ones, the job, and the listing itself


def test_a_job_that_cannot_be_sent_as_json_is_refused_here(zygote: Zygote) -> None:
    with pytest.raises(TypeError):
        zygote.run(answer, number=object())
    with pytest.raises(ValueError, match="cannot be imported"):
        zygote.run(lambda report: {})


def test_references_resolve() -> None:
    assert reference(json.dumps) == "json:dumps"
