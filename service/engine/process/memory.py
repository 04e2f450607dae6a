"""Measure how much memory a model takes, and return freed memory to the system.

Invariant: no number claims more than was measured. The growth of resident memory also excludes freed memory that the C
library had kept and the model reused. (onnxruntime 1.31 does not report its arenas in Python.)
"""

import ctypes
from pathlib import Path
from resource import getpagesize

MEASUREMENT_METHOD = (
    "growth of the process's resident memory from before the session was made until every shape had been run; "
    "includes whatever else the process did meanwhile; memory of a GPU is not in grown_bytes"
)


def resident_bytes() -> int:
    """Return the current resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


def trim_heap() -> None:
    """Return freed memory to the system, if the C library (glibc) supports it."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
