"""Shared by all engines: their result, scoring one shard, and the queue of shards.

An engine scores and commits every shard of an iterator that may still be planning, and counts rows from any thread.
Invariant: it returns only after everything that it started has ended, and it reports every failure.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from service.scoring.engines.cluster import ClusterOptions
from service.scoring.plan import ChangedError, ReadError, SharedShard, format_error
from service.scoring.progress import Progress
from service.scoring.shard import Context, ModelError, score_shard

# locked: another process scores the shard. unreadable: its input cannot be read. failed: any other error, which ends
# the job.
ShardStatus = Literal["done", "locked", "unreadable", "failed"]

# How long to wait before asking again for a shard that another process has locked.
POLL_S = 0.2

# At most this many shards wait for the worker that reads their row group.
MAX_DEFERRED = 8


@dataclass(kw_only=True)
class EngineResult:
    """`failures` name a file or shard each. `stopped`: shards were left unscored because the engine gave up.

    `dropped`: shards that were being scored when a cancelled job had used up its time. `computed`: the rows that were
    scored, rejected or left out for each job, by its number.
    """

    computed: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stopped: bool = False
    dropped: int = 0


class Cancellation:
    """A request to end a job early, from any thread or a signal handler.

    Shards that are being scored then have `grace_s` seconds to be committed.
    """

    def __init__(self, event: threading.Event, grace_s: float) -> None:
        self._event, self._grace_s = event, grace_s
        self._deadline: float | None = None

    @property
    def requested(self) -> bool:
        if self._event.is_set() and self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s
        return self._deadline is not None

    @property
    def expired(self) -> bool:
        """Whether the time for the shards that are being scored is over."""
        return self.requested and time.monotonic() >= (self._deadline or 0.0)


@dataclass(frozen=True, kw_only=True)
class EngineContext:
    """What an engine reports to and asks while it runs: counts, lines for the user, and whether to end early.

    `cluster` is for the Ray engine.
    """

    progress: Progress
    message: Callable[[str], None]
    cancellation: Cancellation
    cluster: ClusterOptions = field(default_factory=ClusterOptions)


@dataclass(frozen=True, kw_only=True)
class ShardOutcome:
    """What became of a shard: `detail` is the error message unless it is done or locked.

    `computed`: the rows that were scored, rejected or left out for each job that had not committed them, by its number.
    """

    status: ShardStatus
    detail: str = ""
    computed: Mapping[int, int] = field(default_factory=dict)


def try_score(context: Context, shard: SharedShard, progress: Callable[[int, int], None]) -> ShardOutcome:
    """Score a shard for each of its jobs."""
    title = shard.first.title
    try:
        computed = score_shard(context, shard, progress)
    except ChangedError as error:
        return ShardOutcome(status="failed", detail=str(error))
    except ReadError as error:
        return ShardOutcome(status="unreadable", detail=str(error))
    except ModelError as error:
        return ShardOutcome(status="failed", detail=f"{error.model}: {title}: {format_error(error.reason)}")
    except Exception as error:  # noqa: BLE001 - any error must end the job with a message
        return ShardOutcome(status="failed", detail=f"{title}: {format_error(error)}")
    return ShardOutcome(status="locked") if computed is None else ShardOutcome(status="done", computed=computed)


class ShardQueue:
    """Hands out the shards of a plan one by one, to any thread.

    The parts of a row group go to one worker as long as the other workers have shards to score: reading the second part
    of a row group means decoding the first part too. A shard that another process has locked is handed out again when
    all others are: it is then committed, or free because that process has died.
    """

    def __init__(self, shards: Iterator[SharedShard]) -> None:
        self._shards, self._lock = shards, threading.Lock()
        self._deferred: list[SharedShard] = []
        self._positions_in_use: set[tuple[int, int]] = set()
        self._locked: list[tuple[float, SharedShard]] = []  # with the time at which to try again
        self.stopped = False
        # An error of the planning itself; the engine raises it again.
        self.error: BaseException | None = None

    def next_shard(self, previous: SharedShard | None = None) -> SharedShard | None:
        """The next shard for the worker that has finished `previous`; None if there is none or the queue is stopped."""
        while True:
            with self._lock:
                if self.stopped:
                    return None
                try:
                    shard = self._choose(previous)
                except BaseException as error:  # noqa: BLE001 - raised again by the engine
                    self.error, self.stopped = error, True
                    return None
                if shard is not None or not self._locked:
                    return shard
                previous = None
                if self._locked[0][0] <= time.monotonic():
                    return self._locked.pop(0)[1]
            time.sleep(POLL_S / 4)

    def put_back(self, shard: SharedShard) -> None:
        """Hand the shard out again later, because another process has locked it."""
        with self._lock:
            self._locked.append((time.monotonic() + POLL_S, shard))

    def _choose(self, previous: SharedShard | None) -> SharedShard | None:
        if previous is not None:
            self._positions_in_use.discard(previous.first.read_position)
        in_use = self._positions_in_use
        shard = next((shard for shard in self._deferred if shard.first.read_position not in in_use), None)
        if shard is not None:
            self._deferred.remove(shard)
        else:
            shard = self._next_planned()
        if shard is not None:
            self._positions_in_use.add(shard.first.read_position)
        return shard

    def _next_planned(self) -> SharedShard | None:
        """The next shard of the plan that is not part of a row group in use; else a deferred shard."""
        while len(self._deferred) < MAX_DEFERRED:
            shard = next(self._shards, None)
            if shard is None:
                break
            if not shard.first.span.skip or shard.first.read_position not in self._positions_in_use:
                return shard
            self._deferred.append(shard)
        return self._deferred.pop(0) if self._deferred else None
