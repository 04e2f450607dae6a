"""Memory is measured as the kernel counts it for this process."""

import subprocess
import sys
from mmap import mmap

import numpy as np
import pytest

from service.engine.process.memory import resident_bytes


def test_touched_memory_is_resident() -> None:
    before = resident_bytes()
    # A mapping of its own, because the C library may have kept memory that earlier tests freed.
    held = np.frombuffer(mmap(-1, 64 << 20), np.uint8)
    held.fill(1)
    assert 48 << 20 <= resident_bytes() - before <= 96 << 20


def run_program(program: str) -> int:
    """Return the MiB that the program prints; it runs in a fresh process, because malloc settings last."""
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(completed.stdout)


FREED = """
from service.engine.process.memory import trim_heap, resident_bytes
held = [bytes(100_000) for _ in range(500)]  # too small to be mapped
del held[:-1]
before = resident_bytes()
trim_heap()
print((before - resident_bytes()) >> 20)
"""


def test_trim_heap_returns_freed_memory() -> None:
    assert run_program(FREED) >= 32


GAPS = """
import numpy as np
from service.engine.process.memory import resident_bytes, tune_malloc
{first}
# When this block is freed, glibc raises its threshold for mapped blocks.
large = np.ones(24 << 20, np.uint8)
del large
held = [(np.ones(24 << 20, np.uint8), bytes(100_000)) for _ in range(4)]
before = resident_bytes()
held = [small for _, small in held]
print((before - resident_bytes()) >> 20)
"""


@pytest.mark.parametrize(("first", "min_mebibytes"), [("", 0), ("tune_malloc()", 90)])
def test_tuned_malloc_leaves_no_gaps_between_large_blocks(first: str, min_mebibytes: int) -> None:
    mebibytes = run_program(GAPS.format(first=first))
    assert mebibytes >= min_mebibytes
    assert first or mebibytes < 90, "glibc returns the blocks untuned: this test proves nothing here"
