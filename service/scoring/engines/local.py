"""The local engine: one worker process per core or GPU.

A thread of this process drives each worker: it sends the next shard when the worker has finished the last one. A worker
that dies is replaced and its shard is scored again; a shard that kills three workers fails the job. If there is one
worker per core, each is pinned to its core, whose cache holds what the worker has just read.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import service
from service.container.limits import available_cores
from service.engine.gpu.visible import visible_gpus
from service.scoring.engines.engine import EngineContext, EngineResult, ShardQueue
from service.scoring.job import JOBS, Job
from service.scoring.plan import SharedShard

MAX_ATTEMPTS = 3
JOIN_S = 0.1


def run_local(
    jobs: Sequence[Job], shards: Iterator[SharedShard], *, workers: int | None, context: EngineContext
) -> EngineResult:
    """Score every shard, unless the jobs are cancelled."""
    queue, result = ShardQueue(shards), EngineResult()
    device = jobs[0].device
    count = workers or (max(1, len(visible_gpus())) if device == "cuda" else available_cores())
    allowed = sorted(os.sched_getaffinity(0))
    pinned = allowed if device == "cpu" and count == len(allowed) else [None] * count
    drivers = [_WorkerDriver(jobs, queue, result, context, number=n, core=core) for n, core in enumerate(pinned)]
    context.progress.workers = count
    for driver in drivers:
        driver.start()
    try:
        while running := [driver for driver in drivers if driver.is_alive()]:
            running[0].join(JOIN_S)
            if context.cancellation.requested:
                queue.stopped = True
            if context.cancellation.expired:
                result.dropped += sum(driver.drop() for driver in drivers)
        for driver in drivers:
            driver.join()
    except BaseException:
        queue.stopped = True
        for driver in drivers:
            driver.kill()
        raise
    if queue.error is not None:
        raise queue.error
    result.stopped = queue.stopped
    return result


class _WorkerDriver(threading.Thread):
    """Drives one worker process, and its replacements if it dies."""

    def __init__(
        self,
        jobs: Sequence[Job],
        queue: ShardQueue,
        result: EngineResult,
        context: EngineContext,
        *,
        number: int,
        core: int | None,
    ) -> None:
        super().__init__(name=f"driver-{number}", daemon=True)
        self._jobs, self._queue, self._result, self._context = jobs, queue, result, context
        self._is_dropped = False
        self._number, self._core = number, core
        # None, or a subprocess.Popen[str] with both pipes.
        self._process: Any = None

    def run(self) -> None:
        try:
            if self._start_worker():
                shard = None
                while (shard := self._queue.next_shard(shard)) is not None:
                    self._score(shard)
        except Exception as error:  # noqa: BLE001 - a driver must not end without a message
            self._fail(f"worker {self._number}: {type(error).__name__}: {error}")
        finally:
            self._close_worker()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def drop(self) -> bool:
        """Kill the worker; whether that drops a shard. Called again, it does nothing."""
        if self._is_dropped or not self.is_alive():
            return False
        self._is_dropped = True
        self.kill()
        return True

    def _score(self, shard: SharedShard) -> None:
        """Have the worker score the shard; replace a worker that dies of it, a few times."""
        event: Mapping[str, Any] = {}
        for _ in range(MAX_ATTEMPTS):
            event = self._send(shard)
            if event["event"] != "died":
                self._settle(shard, event)
                return
            if self._is_dropped or self._queue.stopped:
                return
            self._context.message(f"{shard.first.title}: the worker {event['detail']}; scoring it again")
            if not self._start_worker():
                return
        self._fail(f"{shard.first.title}: {MAX_ATTEMPTS} workers died scoring it (the last {event['detail']})")

    def _settle(self, shard: SharedShard, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "done":
                self._result.computed.update({int(number): rows for number, rows in event["computed"].items()})
            case "locked":
                self._queue.put_back(shard)
            case "unreadable":
                self._result.failures.append(event["detail"])
            case _:
                self._fail(event["detail"])

    def _send(self, shard: SharedShard) -> Mapping[str, Any]:
        """Send a shard to the worker and report its progress; return the event that ends it."""
        rows = rejects = 0
        event = self._next_event(json.dumps(shard.to_json()) + "\n")
        while event["event"] == "progress":
            rows, rejects = rows + event["rows"], rejects + event["rejects"]
            self._context.progress.add_done(event["rows"], event["rejects"])
            event = self._next_event()
        if event["event"] == "done":
            self._context.progress.add_done(event["rows"], event["rejects"])
        else:
            self._context.progress.add_done(-rows, -rejects)
        return event

    def _next_event(self, message: str = "") -> Mapping[str, Any]:
        """Send the worker a line, if any, and return its next event; the event "died" if it has ended."""
        try:
            self._process.stdin.write(message)
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line.endswith("\n"):
            event: dict[str, Any] = json.loads(line)
            return event
        code = self._process.wait()
        detail = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return {"event": "died", "detail": detail}

    def _start_worker(self) -> bool:
        """Start a worker and wait until it is ready; one that dies while starting is replaced a few times."""
        for _ in range(MAX_ATTEMPTS):
            event = self._spawn()
            if event["event"] != "died" or self._queue.stopped:
                break
        if event["event"] != "ready" and not self._is_dropped:
            self._fail(f"a worker cannot start: {event['detail']}")
        return event["event"] == "ready"

    def _spawn(self) -> Mapping[str, Any]:
        """Start a process and send it the jobs; return its first event."""
        self._close_worker()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.scoring.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=self._environment(),
        )
        if self._core is not None:
            # Pinning fails if it is forbidden, or the core or process no longer exists: the worker runs on any core.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._process.pid, {self._core})
        return self._next_event(JOBS.dump_json(tuple(self._jobs)).decode() + "\n")

    def _close_worker(self) -> None:
        """Close the worker's input, which makes it end, and wait for it."""
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()

    def _fail(self, detail: str) -> None:
        if not self._queue.stopped or detail not in self._result.failures:
            self._result.failures.append(detail)
        self._queue.stopped = True

    def _environment(self) -> dict[str, str]:
        paths = [str(Path(service.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
        if self._jobs[0].device == "cuda" and (gpus := visible_gpus()):
            variables["CUDA_VISIBLE_DEVICES"] = gpus[self._number % len(gpus)]
        return variables
