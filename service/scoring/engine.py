"""What an engine is, and what every engine does the same way: score one shard and say in words what became of it.

Invariant: an engine returns only after nothing that it started still runs, and it forgets no failure.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from service.scoring.job import Job
from service.scoring.plan import ReadError, Shard, describe
from service.scoring.shard import Context, score_shard

Fate = Literal["done", "busy", "read", "failed"]  # busy: another process has it; read: the input is at fault


HELD = 8  # shards that wait for the worker which reads their row group


class Report(Protocol):
    """Who wants to know how it goes; called from any thread."""

    def planned(self, rows: int) -> None: ...

    def done(self, rows: int, rejects: int) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(kw_only=True)
class Outcome:
    """Failures, each naming file or shard; `stopped`: shards were left undone because going on made no sense."""

    failures: list[str] = field(default_factory=list)
    stopped: bool = False


class Engine(Protocol):
    def __call__(self, job: Job, shards: Iterator[Shard], *, workers: int | None, report: Report) -> Outcome:
        """Score every shard of the iterator, which may still be planning, and see it committed."""
        ...


def attempt(context: Context, shard: Shard, progress: Callable[[int, int], None]) -> tuple[Fate, str]:
    """Score a shard; what became of it, and why if it failed."""
    try:
        record = score_shard(context, shard, progress)
    except ReadError as error:
        return "read", str(error)
    except Exception as error:  # noqa: BLE001 - whatever it was, the job must end with a sentence
        return "failed", f"{shard.title}: {describe(error)}"
    return ("busy", "") if record is None else ("done", "")


class Queue:
    """The shards that are left, handed out one by one to any thread.

    Shards of one row group go to one worker as long as there are others for the rest: who reads the second part of a
    row group must pass over the first.
    """

    def __init__(self, shards: Iterator[Shard]) -> None:
        self._shards, self._lock = shards, threading.Lock()
        self._held: list[Shard] = []  # later parts of row groups that somebody is reading
        self._read: set[tuple[int, int]] = set()  # those row groups
        self.stopped = False
        self.error: BaseException | None = None  # of the planning itself

    def next(self, last: Shard | None = None) -> Shard | None:
        """A shard for the worker that had `last` before."""
        with self._lock:
            if self.stopped:
                return None
            try:
                return self._choose(last)
            except BaseException as error:  # noqa: BLE001 - raised again by the engine
                self.error, self.stopped = error, True
                return None

    def _choose(self, last: Shard | None) -> Shard | None:
        if last is not None:
            self._read.discard(last.place)
        shard = next((held for held in self._held if held.place not in self._read), None)
        if shard is not None:
            self._held.remove(shard)
        else:
            shard = self._new()
        if shard is not None:
            self._read.add(shard.place)
        return shard

    def _new(self) -> Shard | None:
        """The next of the plan but for later parts of row groups that are being read, or else one of those."""
        while len(self._held) < HELD:
            shard = next(self._shards, None)
            if shard is None:
                break
            if not shard.span.skip or shard.place not in self._read:
                return shard
            self._held.append(shard)
        return self._held.pop(0) if self._held else None

    def stop(self) -> None:
        self.stopped = True
