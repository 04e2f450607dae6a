"""All tuning of a serving process in one place: cores, scheduling policy, interpreter, garbage collector, allocator.

Each setting names the measurement that defends it; benchmarks/LOG.md has the figures. None changes an answer.
"""

import ctypes
import gc
import os
import sys
import threading
from contextlib import suppress

from service.container.limits import cpu_limit

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
HOST_NICENESS = 10


def core_of_worker(index: int, num_workers: int) -> int | None:
    """One core each for as many workers as cores, else None: the two threads of a request wake no other core."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[index] if 1 < num_workers == len(cores) else None


def max_threads(num_workers: int) -> int:
    """The threads on which one of so many workers may compute: one for each of its cores, of a CPU limit its share.

    More threads would use up the limit early in each period; the whole container would then stand still until the next.
    """
    count, limit = len(os.sched_getaffinity(0)), cpu_limit()
    return count if limit is None else max(1, min(count, int(limit / num_workers)))


def tune_worker(core: int | None) -> None:
    """Prepare a worker process: its core, its scheduling policy and the interpreter."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    sys.setswitchinterval(5e-4)  # s; the longest wait for the interpreter lock
    if len(os.sched_getaffinity(0)) == 1:
        # Threads that share one core do not preempt each other for each request. Containers may forbid it.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def tune_malloc() -> None:
    """Have the C library (glibc) return large blocks to the system when they are freed.

    By default it keeps up to 32 MiB of a freed block for each thread, so a process that reloads versions grows.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 20)  # larger blocks are mapped on their own, and unmapped when they are freed
    mallopt(M_TRIM_THRESHOLD, 8 << 20)  # more free memory at the end of the heap returns to the system
    mallopt(M_ARENA_MAX, 2)


def tune_gc() -> None:
    """Exclude everything that was imported from garbage collection, and collect less often.

    A full collection of the imported modules takes 50 ms in the middle of requests; a request leaves no cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def lower_priority() -> None:
    """Have the calling thread give way to the event loop and the device threads while they have work (Linux)."""
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + HOST_NICENESS)
