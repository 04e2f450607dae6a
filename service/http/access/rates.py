"""The rate and the concurrency of keys, counted over all workers of the service.

Invariant: a request is admitted only if all workers together stay within the limits of its key. The counters are in
memory that the workers share as a file; its lock ends with the process that holds it, and what a worker that has died
was computing is no longer counted once another one starts.

A rate is a token bucket, kept as one number (the generic cell rate algorithm, ITU-T I.371): the time at which the
bucket will be full.
"""

import math
import mmap
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path
from typing import NamedTuple

from service.engine.process.identity import is_alive, process_identity
from service.keys.key_file import Key

MAX_WORKERS = 512  # that are alive at the same time
MAX_NAMES = 1024  # of keys with limits, since the start of the service
FILE = "key-limits"
OWNER = struct.Struct("32s")  # the process that counts in a column
ROW = struct.Struct("=64sdi")  # the name of a key, when its bucket will be full, its requests in progress
STATE = struct.Struct("=di")  # of a row, behind the name
COUNT = struct.Struct("=i")  # the requests of one key in progress in one worker: one column for each
STATE_AT, COUNTS_AT = 64, 80  # within a row
ROW_BYTES = COUNTS_AT + MAX_WORKERS * COUNT.size
ROWS_AT = MAX_WORKERS * OWNER.size
SIZE = ROWS_AT + MAX_NAMES * ROW_BYTES
ROUNDING_S = 1e-9
read_state, write_state = STATE.unpack_from, STATE.pack_into


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The limits of a key, and where they are counted."""

    row: int
    rate: float  # requests per second; 0: any
    interval_s: float  # between two requests at the rate
    window_s: float  # for a whole burst at the rate
    concurrency: int  # 0: any


class Usage(NamedTuple):
    """What is left of the limits of a key, after a request was admitted or refused."""

    wait_s: float  # until the rate admits the request; 0: it was admitted; infinite: as long as others are in progress
    num_left: int  # requests that the rate admits now
    full_s: float  # until the rate admits a whole burst
    num_free: int  # requests that may still be in progress


class SharedLock:
    """Excludes other threads and other processes; it ends with the process that holds it."""

    def __init__(self, file: int) -> None:
        """`file` is a descriptor of its own."""
        self._threads = threading.Lock()
        self._file = file
        weakref.finalize(self, os.close, file)

    def __enter__(self) -> None:
        self._threads.acquire()
        flock(self._file, LOCK_EX)

    def __exit__(self, *_: object) -> None:
        flock(self._file, LOCK_UN)
        self._threads.release()


class KeyLimits:
    """Counts the requests of keys; `folder` is shared by the workers, or None in a service of one worker."""

    def __init__(self, folder: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is the same in all processes of the machine."""
        self._clock = clock
        self._is_shared = folder is not None
        self._lock: SharedLock | threading.Lock = threading.Lock()
        if folder is None:
            self._memory = mmap.mmap(-1, SIZE)
        else:
            descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(descriptor, SIZE)
            self._memory = mmap.mmap(descriptor, SIZE)
            self._lock = SharedLock(descriptor)
        with self._lock:
            self._column = self._claim_column()

    def limit(self, key: Key) -> Limit | None:
        """Return the limits of a key, or None if it has none. Raises ValueError if no place is left to count."""
        if not (key.rate or key.concurrency):
            return None
        interval_s = 1 / key.rate if key.rate else 0.0
        return Limit(
            row=self._find_row(key.name),
            rate=key.rate,
            interval_s=interval_s,
            window_s=key.burst * interval_s,
            concurrency=key.concurrency,
        )

    def _find_row(self, name: str) -> int:
        encoded = name.encode()
        with self._lock:
            for offset in range(ROWS_AT, SIZE, ROW_BYTES):
                found = ROW.unpack_from(self._memory, offset)[0].rstrip(b"\0")
                if found in {encoded, b""}:
                    if not found:
                        ROW.pack_into(self._memory, offset, encoded, 0.0, 0)
                    return offset
        raise ValueError(f"at most {MAX_NAMES} names of keys with limits are counted; restart the service")

    def admit(self, limit: Limit, *, holds: bool) -> Usage:
        """Count a request if the limits admit it; one that `holds` stays in progress until `release`. Thread-safe."""
        with self._lock:
            now = self._clock()
            full_at, num_running = read_state(self._memory, limit.row + STATE_AT)
            # A rate that was raised since must not be waited for at the old rate.
            full_s = min(full_at - now, limit.window_s) if full_at > now else 0.0
            num_free = limit.concurrency - num_running
            wait_s = full_s + limit.interval_s - limit.window_s
            if wait_s < ROUNDING_S:
                wait_s = 0.0
            takes_place = holds and limit.concurrency > 0
            if takes_place and num_free <= 0:
                wait_s = math.inf
            if not wait_s:
                full_s += limit.interval_s
                if takes_place:
                    num_running += 1
                    num_free -= 1
                    if self._is_shared:
                        self._count(limit.row, 1)
                write_state(self._memory, limit.row + STATE_AT, now + full_s, num_running)
        return Usage(wait_s, int((limit.window_s - full_s) * limit.rate + 1e-6), full_s, num_free)

    def release(self, row: int) -> None:
        """End a request that holds a place. Thread-safe."""
        with self._lock:
            full_at, num_running = read_state(self._memory, row + STATE_AT)
            if self._is_shared:
                self._count(row, -1)
            write_state(self._memory, row + STATE_AT, full_at, num_running - 1)

    def _count(self, row: int, change: int) -> None:
        place = row + COUNTS_AT + self._column * COUNT.size
        COUNT.pack_into(self._memory, place, COUNT.unpack_from(self._memory, place)[0] + change)

    def _claim_column(self) -> int:
        """Return a column for this process, and forget what processes that have ended were computing."""
        free = -1
        for column in reversed(range(MAX_WORKERS)):
            owner = OWNER.unpack_from(self._memory, column * OWNER.size)[0].rstrip(b"\0")
            if owner and not is_alive(owner.decode()):
                for row in range(ROWS_AT, SIZE, ROW_BYTES):
                    COUNT.pack_into(self._memory, row + COUNTS_AT + column * COUNT.size, 0)
                owner = b""
                OWNER.pack_into(self._memory, column * OWNER.size, owner)
            if not owner:
                free = column
        if free < 0:
            raise ValueError(f"at most {MAX_WORKERS} workers share the limits of keys")
        OWNER.pack_into(self._memory, free * OWNER.size, process_identity(os.getpid()).encode())
        for row in range(ROWS_AT, SIZE, ROW_BYTES):
            name, full_at, _ = ROW.unpack_from(self._memory, row)
            if not name.rstrip(b"\0"):
                break
            counts = struct.unpack_from(f"={MAX_WORKERS}i", self._memory, row + COUNTS_AT)
            write_state(self._memory, row + STATE_AT, full_at, sum(counts))
        return free
