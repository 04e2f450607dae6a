"""Memory is that of this process, as the kernel counts it."""

import numpy as np

from service.engine.memory import give_back, resident_bytes


def test_memory_that_is_touched_is_resident() -> None:
    before = resident_bytes()
    held = np.ones(64 << 20, np.uint8)
    grown = resident_bytes() - before
    assert 48 << 20 <= grown <= 96 << 20
    assert held.size == 64 << 20


def test_freed_memory_is_given_back() -> None:
    held = [bytes(100_000) for _ in range(500)]  # too small for mappings of their own
    del held[:-1]
    before = resident_bytes()
    give_back()
    assert before - resident_bytes() >= 32 << 20
    assert len(held) == 1
