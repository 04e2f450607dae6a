"""Memory is that of this process, as the kernel counts it."""

import subprocess
import sys
from mmap import mmap

import numpy as np
import pytest

from service.engine.process.memory import resident_bytes


def test_memory_that_is_touched_is_resident() -> None:
    before = resident_bytes()
    held = np.frombuffer(mmap(-1, 64 << 20), np.uint8)  # not what the tests before freed and the C library kept
    held.fill(1)
    assert 48 << 20 <= resident_bytes() - before <= 96 << 20


def measured(program: str) -> int:
    """The MiB that it prints, in a process of its own: others freed nothing there, and what it sets lasts."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


FREED = """
from service.engine.process.memory import give_back, resident_bytes
held = [bytes(100_000) for _ in range(500)]  # too small for mappings of their own
del held[:-1]
before = resident_bytes()
give_back()
print((before - resident_bytes()) >> 20)
"""


def test_freed_memory_is_given_back() -> None:
    assert measured(FREED) >= 32


HOLES = """
import numpy as np
from service.engine.process.memory import resident_bytes, return_freely
{first}
del_me = np.ones(24 << 20, np.uint8)  # when it is freed, glibc raises its bound for blocks that are mapped
del del_me
held = [(np.ones(24 << 20, np.uint8), bytes(100_000)) for _ in range(4)]
before = resident_bytes()
held = [small for _, small in held]
print((before - resident_bytes()) >> 20)
"""


@pytest.mark.parametrize(("first", "least"), [("", 0), ("return_freely()", 90)])
def test_large_blocks_leave_no_holes(first: str, least: int) -> None:
    mebibytes = measured(HOLES.format(first=first))
    assert mebibytes >= least
    assert first or mebibytes < 90, "this test shows nothing here"
