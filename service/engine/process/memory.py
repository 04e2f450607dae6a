"""How much memory a model takes, as far as it can be measured from inside the process, and that it comes back.

Invariant: a number never says more than it is. What is measured is the growth of the whole process's resident memory
while the model was loaded and warmed; anything else that the process did meanwhile is in it, and what the model reused
of memory that was freed but not given back is not. (onnxruntime 1.31 tells nothing of its arenas in Python.)
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGE_BYTES = 1 << 20  # mapped each on its own
KEPT_BYTES = 8 << 20  # at the end of the heap, for what comes next
NUM_ARENAS = 2
HOW = (
    "growth of the process's resident memory from before the session was made until every shape had been run; "
    "includes whatever else the process did meanwhile; memory of a GPU is not in it"
)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """`model_bytes` is the size of the graph with its weights, exactly; `grown_bytes` is what HOW says."""

    model_bytes: int
    grown_bytes: int


def resident_bytes() -> int:
    """Resident memory of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


def return_freely() -> None:
    """Have the C library (glibc) give large blocks back when they are freed, for as long as this process lives.

    By itself it comes to keep blocks of up to 32 MiB, in an arena for each thread, and a process that loads versions
    again and again grows with the holes between them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_ARENA_MAX, NUM_ARENAS)


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library (glibc) can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
