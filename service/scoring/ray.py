"""The Ray engine: shards as tasks on a cluster, or to one actor for each GPU.

The output folder must be one that every node sees. A task that is lost with its node is run again by Ray; the ledger
sees to it that this changes nothing. How many nodes there are is Ray's business.
"""

import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

import service
from service.scoring.engine import Fate, Outcome, Report, attempt
from service.scoring.job import Job
from service.scoring.plan import Shard
from service.scoring.shard import Context

IN_FLIGHT = 2  # shards for each worker, so that an autoscaler sees what waits
POLL_S = 0.2
Answer = tuple[Fate, str, int, int]


def run_ray(job: Job, shards: Iterator[Shard], *, workers: int | None, report: Report) -> Outcome:
    """Score every shard on the cluster of RAY_ADDRESS, or on one of this machine; see `Engine`."""
    started = not ray.is_initialized()
    if started:
        root = str(Path(service.__file__).parent.parent)  # nodes that are started here inherit it
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        ray.init(log_to_driver=False, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None)
    try:
        submit = _Actors(job, workers) if job.device == "cuda" else _Tasks(job, workers)
        return _drain(submit, shards, report)
    finally:
        if started:
            ray.shutdown()


class _Tasks:
    """A task a shard; Ray runs them where there is a free core."""

    def __init__(self, job: Job, workers: int | None) -> None:
        self._job = job.model_dump_json()
        self._score = ray.remote(num_cpus=1, max_retries=-1)(score_on_node)
        self.limit = IN_FLIGHT * (workers or max(1, int(ray.cluster_resources().get("CPU", 1))))

    def __call__(self, shard: Shard) -> Any:
        return self._score.remote(self._job, shard.to_json())


class _Actors:
    """One actor a GPU, each with one session."""

    def __init__(self, job: Job, workers: int | None) -> None:
        count = workers or max(1, int(ray.cluster_resources().get("GPU", 1)))
        actor: Any = ray.remote(num_gpus=1, max_restarts=-1, max_task_retries=-1)(GpuScorer)
        self._actors = [actor.remote(job.model_dump_json()) for _ in range(count)]
        self._next = 0
        self.limit = IN_FLIGHT * count

    def __call__(self, shard: Shard) -> Any:
        self._next = (self._next + 1) % len(self._actors)
        return self._actors[self._next].score.remote(shard.to_json())


class GpuScorer:
    def __init__(self, job: str) -> None:
        self._job = job

    def score(self, shard: dict[str, Any]) -> Answer:
        return score_on_node(self._job, shard)


def score_on_node(job: str, shard: dict[str, Any]) -> Answer:
    """Runs on a node: fate, detail, rows and rejects of one shard."""
    counted = [0, 0]

    def progress(rows: int, rejects: int) -> None:
        counted[0] += rows
        counted[1] += rejects

    fate, detail = attempt(_context(job), Shard.from_json(shard), progress)
    return fate, detail, counted[0], counted[1]


@functools.lru_cache(maxsize=1)
def _context(job: str) -> Context:
    return Context(Job.model_validate_json(job))


def _drain(submit: _Tasks | _Actors, shards: Iterator[Shard], report: Report) -> Outcome:
    outcome = Outcome()
    flying: dict[Any, Shard] = {}
    more = True
    while more or flying:
        while more and len(flying) < submit.limit:
            shard = next(shards, None)
            if shard is None:
                more = False
            else:
                flying[submit(shard)] = shard
        if not flying:
            break
        [ready], _ = ray.wait(list(flying), num_returns=1)
        shard = flying.pop(ready)
        fate, detail, rows, rejects = _answer(ready, shard)
        if fate == "done":
            report.done(rows, rejects)
        elif fate == "busy":
            time.sleep(POLL_S)
            flying[submit(shard)] = shard
        else:
            outcome.failures.append(detail)
            if fate != "read":
                outcome.stopped, more = True, False
    return outcome


def _answer(ready: Any, shard: Shard) -> Answer:
    try:
        answer: Answer = ray.get(ready)
    except ray.exceptions.RayError as error:
        return "failed", f"{shard.title}: {str(error).strip().splitlines()[-1]}", 0, 0
    return answer
