"""The Ray engine: each shard is a task on a cluster, or a call of one actor per GPU.

Every node must see the output folder at the same path. Ray runs a task again if its node is lost; the ledger makes that
harmless. Ray decides how many nodes there are.
"""

import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

import service
from service.scoring.engines.engine import EngineResult, ProgressReport, ShardStatus, try_score
from service.scoring.job import Job
from service.scoring.plan import Shard
from service.scoring.shard import Context

# Shards in flight per worker, so that an autoscaler sees shards that wait.
IN_FLIGHT = 2
POLL_S = 0.2
# Status, error message, rows and rejected rows of one shard.
ShardReport = tuple[ShardStatus, str, int, int]


def run_ray(job: Job, shards: Iterator[Shard], *, workers: int | None, report: ProgressReport) -> EngineResult:
    """Score every shard on the cluster of RAY_ADDRESS, or on a cluster of this machine alone; see `Engine`."""
    started = not ray.is_initialized()
    if started:
        # Nodes that are started here inherit the path.
        root = str(Path(service.__file__).parent.parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        ray.init(log_to_driver=False, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None)
    try:
        submit = _Actors(job, workers) if job.device == "cuda" else _Tasks(job, workers)
        return _score_all(submit, shards, report)
    finally:
        if started:
            ray.shutdown()


class _Tasks:
    """One task per shard; Ray runs it where a core is free."""

    def __init__(self, job: Job, workers: int | None) -> None:
        self._job = job.model_dump_json()
        self._score = ray.remote(num_cpus=1, max_retries=-1)(score_on_node)
        self.limit = IN_FLIGHT * (workers or max(1, int(ray.cluster_resources().get("CPU", 1))))

    def __call__(self, shard: Shard) -> Any:
        return self._score.remote(self._job, shard.to_json())


class _Actors:
    """One actor per GPU, each with one session."""

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

    def score(self, shard: dict[str, Any]) -> ShardReport:
        return score_on_node(self._job, shard)


def score_on_node(job: str, shard: dict[str, Any]) -> ShardReport:
    """Score one shard; runs on a node of the cluster."""
    total_rows = total_rejects = 0

    def progress(rows: int, rejects: int) -> None:
        nonlocal total_rows, total_rejects
        total_rows, total_rejects = total_rows + rows, total_rejects + rejects

    status, detail = try_score(_context(job), Shard.from_json(shard), progress)
    return status, detail, total_rows, total_rejects


@functools.lru_cache(maxsize=1)
def _context(job: str) -> Context:
    return Context(Job.model_validate_json(job))


def _score_all(submit: _Tasks | _Actors, shards: Iterator[Shard], report: ProgressReport) -> EngineResult:
    result = EngineResult()
    in_flight: dict[Any, Shard] = {}
    more = True
    while more or in_flight:
        while more and len(in_flight) < submit.limit:
            shard = next(shards, None)
            if shard is None:
                more = False
            else:
                in_flight[submit(shard)] = shard
        if not in_flight:
            break
        [ready], _ = ray.wait(list(in_flight), num_returns=1)
        shard = in_flight.pop(ready)
        status, detail, rows, rejects = _shard_report(ready, shard)
        if status == "done":
            report.add_done(rows, rejects)
        elif status == "locked":
            time.sleep(POLL_S)
            in_flight[submit(shard)] = shard
        else:
            result.failures.append(detail)
            if status != "unreadable":
                result.stopped, more = True, False
    return result


def _shard_report(ready: Any, shard: Shard) -> ShardReport:
    try:
        report: ShardReport = ray.get(ready)
    except ray.exceptions.RayError as error:
        return "failed", f"{shard.title}: {str(error).strip().splitlines()[-1]}", 0, 0
    return report
