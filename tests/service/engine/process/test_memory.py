"""Memory is measured as the kernel counts it for this process."""

import subprocess
import sys
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import numpy as np

from service.engine.process.memory import MEASUREMENT_METHOD, resident_bytes


def test_touched_memory_is_resident() -> None:
    before = resident_bytes()
    # A mapping of its own, because the C library may have kept memory that earlier tests freed.
    held = np.frombuffer(mmap(-1, 64 << 20, MAP_PRIVATE | MAP_ANONYMOUS), np.uint8)
    held.fill(1)
    assert 48 << 20 <= resident_bytes() - before <= 96 << 20


def run_program(program: str) -> int:
    """Return the MiB that the program prints, from a fresh process."""
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


def test_what_is_measured_is_said_with_its_limits() -> None:
    assert "resident memory" in MEASUREMENT_METHOD
    assert "includes whatever else the process did meanwhile" in MEASUREMENT_METHOD
