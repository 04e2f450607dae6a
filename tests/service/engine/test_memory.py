"""Memory is that of this process, as the kernel counts it."""

import numpy as np

from service.engine.memory import resident_bytes


def test_memory_that_is_touched_is_resident() -> None:
    before = resident_bytes()
    held = np.ones(64 << 20, np.uint8)
    grown = resident_bytes() - before
    assert 48 << 20 <= grown <= 96 << 20
    assert held.size == 64 << 20
