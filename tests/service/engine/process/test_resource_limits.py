"""Limits hold in the process that sets them, and count from then on."""

import resource
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.e2e.serving import ROOT

MIB = 1 << 20


def run(code: str) -> subprocess.CompletedProcess[str]:
    head = "import mmap, resource, time; from service.engine.process.resource_limits import *\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_memory_beyond_the_limit_is_refused() -> None:
    done = run("""
        held = bytearray(300 << 20)
        limit_memory(100 << 20)
        more = bytearray(50 << 20)  # what was there before does not count
        try:
            bytearray(100 << 20)
        except MemoryError:
            print("refused", memory_limit_was_reached())
        print(len(bytearray(100 << 20)) >> 20)  # the question has lifted the limit
        print(open("/proc/self/oom_score_adj").read().strip())
    """)
    assert done.stdout.split() == ["refused", "True", "100", "1000"], done.stderr


def test_a_machine_without_memory_is_told_from_the_limit() -> None:
    done = run("""
        limit_memory(100 << 20)
        now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (30 << 20), resource.RLIM_INFINITY))
        try:
            bytearray(60 << 20)
        except MemoryError:
            print(memory_limit_was_reached())
    """)
    assert done.stdout.split() == ["False"], done.stderr


def test_without_a_limit_it_was_not_reached() -> None:
    assert run("print(memory_limit_was_reached())").stdout.split() == ["False"]


def test_a_limit_above_what_is_allowed_is_cut() -> None:
    done = run("""
        resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (50, 50))
        limit_memory(1 << 40)
        limit_cpu(1000)
        print(resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20, resource.getrlimit(resource.RLIMIT_CPU)[0])
    """)
    assert done.stdout.split() == ["900", "50"], done.stderr


def test_cpu_time_beyond_the_limit_ends_the_process() -> None:
    done = run("""
        disable_core_dumps()
        limit_cpu(0.1)
        end = time.process_time() + 20
        while time.process_time() < end: pass
    """)
    assert done.returncode == -signal.SIGXCPU


def test_cpu_time_that_was_used_does_not_count() -> None:
    done = run("""
        while time.process_time() < 2.5: pass
        limit_cpu(5)
        print(resource.getrlimit(resource.RLIMIT_CPU)[0])
        disable_core_dumps()
        print(resource.getrlimit(resource.RLIMIT_CORE)[0])
    """)
    limit, core = map(int, done.stdout.split())
    assert 8 <= limit <= 9
    assert core == 0


def test_this_process_is_not_limited() -> None:
    """The tests above ran in processes of their own."""
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] in {resource.RLIM_INFINITY, -1} or pytest.skip("limited outside")
