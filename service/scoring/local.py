"""The local engine: as many worker processes as cores, or one for each GPU.

Each worker is driven by a thread here, which hands it the next shard when it is done with the last. A worker that dies
is replaced and its shard begun anew; a shard that kills three workers fails the job.

Where there is a worker for every core, each stays on its own: what it has just read is in that core's cache.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import service
from service.scoring.engine import Outcome, Queue, Report
from service.scoring.job import Job
from service.scoring.plan import Shard

ATTEMPTS = 3
POLL_S = 0.2  # how often to ask for a shard that another process has


def run_local(job: Job, shards: Iterator[Shard], *, workers: int | None, report: Report) -> Outcome:
    """Score every shard; see `Engine`."""
    queue, outcome = Queue(shards), Outcome()
    count = workers or (len(_gpus()) if job.device == "cuda" else cores())
    own = sorted(os.sched_getaffinity(0))
    places = own if job.device == "cpu" and count == len(own) else [None] * count
    drivers = [_Driver(job, queue, outcome, report, number=number, core=core) for number, core in enumerate(places)]
    for driver in drivers:
        driver.start()
    try:
        for driver in drivers:
            driver.join()
    except BaseException:
        queue.stop()
        for driver in drivers:
            driver.kill()
        raise
    if queue.error is not None:
        raise queue.error
    outcome.stopped = queue.stopped
    return outcome


class _Driver(threading.Thread):
    """One worker process, and its successors if it dies."""

    def __init__(
        self, job: Job, queue: Queue, outcome: Outcome, report: Report, *, number: int, core: int | None
    ) -> None:
        super().__init__(name=f"driver-{number}", daemon=True)
        self._job, self._queue, self._outcome, self._report, self._number = job, queue, outcome, report, number
        self._core = core
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        try:
            if self._start():
                shard = None
                while (shard := self._queue.next(shard)) is not None:
                    self._score(shard)
        except Exception as error:  # noqa: BLE001 - a driver must not vanish without a word
            self._fail(f"worker {self._number}: {type(error).__name__}: {error}")
        finally:
            self._end()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _score(self, shard: Shard) -> None:
        deaths = 0
        while not self._queue.stopped:
            event = self._ask(shard)
            match event.get("event"):
                case "done":
                    return
                case "busy":
                    time.sleep(POLL_S)
                case "read":
                    self._outcome.failures.append(event["detail"])
                    return
                case "died" if (deaths := deaths + 1) == ATTEMPTS:
                    self._fail(f"{shard.title}: {ATTEMPTS} workers died of it ({event['detail']})")
                case "died":
                    self._report.note(f"{shard.title}: the worker {event['detail']}; begun anew")
                    self._start()
                case _:
                    self._fail(event["detail"])

    def _ask(self, shard: Shard) -> Mapping[str, Any]:
        process = self._running()
        assert process.stdin is not None
        taken = (0, 0)
        try:
            process.stdin.write(json.dumps(shard.to_json()) + "\n")
            process.stdin.flush()
            while (event := self._event())["event"] == "progress":
                taken = taken[0] + event["rows"], taken[1] + event["rejects"]
                self._report.done(event["rows"], event["rejects"])
        except (BrokenPipeError, EOFError):
            event = self._death()
        if event["event"] == "done":
            self._report.done(event["rows"], event["rejects"])
        else:
            self._report.done(-taken[0], -taken[1])
        return event

    def _running(self) -> "subprocess.Popen[str]":
        assert self._process is not None
        return self._process

    def _event(self) -> dict[str, Any]:
        output = self._running().stdout
        assert output is not None
        line = output.readline()
        if not line.endswith("\n"):
            raise EOFError
        event: dict[str, Any] = json.loads(line)
        return event

    def _death(self) -> dict[str, Any]:
        code = self._running().wait()
        return {
            "event": "died",
            "detail": f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}",
        }

    def _start(self) -> bool:
        """A worker that is ready; one that dies on the way is begun anew a few times."""
        event = self._launch()
        for _ in range(ATTEMPTS - 1):
            if event["event"] == "died" and not self._queue.stopped:
                event = self._launch()
        if event["event"] != "ready":
            self._fail(f"a worker cannot start: {event['detail']}")
        return event["event"] == "ready"

    def _launch(self) -> Mapping[str, Any]:
        self._end()
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "service.scoring.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=self._environment(),
        )
        assert process.stdin is not None
        if self._core is not None:
            with contextlib.suppress(OSError):  # forbidden here, or the core or the process is gone: it works anywhere
                os.sched_setaffinity(process.pid, {self._core})
        try:
            process.stdin.write(self._job.model_dump_json() + "\n")
            process.stdin.flush()
            return self._event()
        except (BrokenPipeError, EOFError):
            return self._death()

    def _end(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
                if pipe is self._process.stdin:
                    self._process.wait()

    def _fail(self, detail: str) -> None:
        if not self._queue.stopped or detail not in self._outcome.failures:
            self._outcome.failures.append(detail)
        self._queue.stop()

    def _environment(self) -> dict[str, str]:
        root = str(Path(service.__file__).parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
        gpus = _gpus() if self._job.device == "cuda" else []
        visible = {"CUDA_VISIBLE_DEVICES": gpus[self._number % len(gpus)]} if gpus else {}
        return {**os.environ, **own, **visible}


def cores(limits: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores that this process may use, by its affinity and by the limit of its container."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = limits.read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or no limit: "max 100000"
        return count


def _gpus() -> list[str]:
    """Their numbers, as CUDA_VISIBLE_DEVICES takes them."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is not None:
        return [name for name in asked.split(",") if name]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")) or ["0"]
