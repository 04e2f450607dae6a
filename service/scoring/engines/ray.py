"""The Ray engine: each shard is a task on a cluster, or a call of one actor per GPU.

Every node must see the output folder at the same path. Ray runs a task again if its node is lost; the ledger makes that
harmless. Ray decides how many nodes there are.
"""

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray

import service
from service.scoring.engines.engine import POLL_S, EngineContext, EngineResult, ShardStatus, try_score
from service.scoring.job import Job
from service.scoring.plan import Shard
from service.scoring.shard import Context

# Shards in flight per worker, so that an autoscaler sees shards that wait.
IN_FLIGHT = 2
# Status, error message, rows and rejected rows of one shard.
ShardReport = tuple[ShardStatus, str, int, int]
Submit = Callable[[Shard], Any]


def run_ray(job: Job, shards: Iterator[Shard], *, workers: int | None, context: EngineContext) -> EngineResult:
    """Score every shard on the cluster of RAY_ADDRESS, or on a cluster of this machine alone."""
    started = not ray.is_initialized()
    if started:
        # Nodes that are started here inherit the path.
        root = str(Path(service.__file__).parent.parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        ray.init(log_to_driver=False, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None)
    try:
        prepare = _submit_to_actors if job.device == "cuda" else _submit_task
        submit, count = prepare(job.model_dump_json(), workers)
        context.progress.workers = count
        return _score_all(submit, IN_FLIGHT * count, shards, context)
    finally:
        if started:
            ray.shutdown()


def _submit_task(job: str, workers: int | None) -> tuple[Submit, int]:
    """One task per shard; Ray runs it where a core is free."""
    task = ray.remote(num_cpus=1, max_retries=-1)(score_on_node)
    return functools.partial(task.remote, job), workers or max(1, int(ray.cluster_resources().get("CPU", 1)))


def _submit_to_actors(job: str, workers: int | None) -> tuple[Submit, int]:
    """One actor per GPU, each with one session."""
    count = workers or max(1, int(ray.cluster_resources().get("GPU", 1)))
    actor: Any = ray.remote(num_gpus=1, max_restarts=-1, max_task_retries=-1)(GpuScorer)
    actors = itertools.cycle([actor.remote() for _ in range(count)])
    return lambda shard: next(actors).score.remote(job, shard), count


class GpuScorer:
    def score(self, job: str, shard: Shard) -> ShardReport:
        return score_on_node(job, shard)


def score_on_node(job: str, shard: Shard) -> ShardReport:
    """Score one shard; runs on a node of the cluster."""
    chunks: list[tuple[int, int]] = []
    status, detail = try_score(_context(job), shard, lambda rows, rejects: chunks.append((rows, rejects)))
    return status, detail, sum(rows for rows, _ in chunks), sum(rejects for _, rejects in chunks)


@functools.lru_cache(maxsize=1)
def _context(job: str) -> Context:
    return Context(Job.model_validate_json(job))


def _score_all(submit: Submit, limit: int, shards: Iterator[Shard], context: EngineContext) -> EngineResult:
    result = EngineResult()
    in_flight = {submit(shard): shard for shard in itertools.islice(shards, limit)}
    locked: list[Shard] = []
    while in_flight or (locked and not result.stopped):
        result.stopped = result.stopped or context.cancellation.requested
        if context.cancellation.expired:
            result.dropped = len(in_flight)
            for task in in_flight:
                with contextlib.suppress(ValueError):  # a method of an actor, which ends with the cluster
                    ray.cancel(task, force=True)
            break
        if not in_flight:
            time.sleep(POLL_S)
            in_flight = {submit(shard): shard for shard in locked}
            locked = []
            continue
        done, _ = ray.wait(list(in_flight), num_returns=1, timeout=POLL_S)
        if not done:
            continue
        [ready] = done
        shard = in_flight.pop(ready)
        try:
            status, detail, rows, rejects = ray.get(ready)
        except ray.exceptions.RayError as error:
            status, detail = "failed", f"{shard.title}: {str(error).strip().splitlines()[-1]}"
        match status:
            case "locked":
                locked.append(shard)
            case "done":
                context.progress.add_done(rows, rejects)
            case _:
                result.failures += [detail] if detail not in result.failures else []
                result.stopped = result.stopped or status == "failed"
        if not result.stopped:
            in_flight |= {submit(shard): shard for shard in itertools.islice(shards, 1)}
    return result
