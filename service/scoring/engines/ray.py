"""The Ray engine: each shard is a task on a cluster, or a call of one actor per GPU.

Every node must see the output folder at the same path. Ray runs a task again if its node is lost; the ledger makes that
harmless. Ray decides how many nodes there are.
"""

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

import service
from service.scoring.engines.engine import POLL_S, EngineContext, EngineResult, ShardOutcome, try_score
from service.scoring.job import JOBS, Job
from service.scoring.plan import SharedShard
from service.scoring.shard import Context

# Shards in flight per worker, so that an autoscaler sees shards that wait.
IN_FLIGHT = 2
# What became of one shard, its rows and rejected rows.
ShardReport = tuple[ShardOutcome, int, int]
Submit = Callable[[SharedShard], Any]


def run_ray(
    jobs: Sequence[Job], shards: Iterator[SharedShard], *, workers: int | None, context: EngineContext
) -> EngineResult:
    """Score every shard on the cluster of RAY_ADDRESS, or on a cluster of this machine alone."""
    started = not ray.is_initialized()
    if started:
        # Nodes that are started here inherit the path.
        root = str(Path(service.__file__).parent.parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        ray.init(log_to_driver=False, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None)
    try:
        prepare = _submit_to_actors if jobs[0].device == "cuda" else _submit_task
        submit, count = prepare(JOBS.dump_json(tuple(jobs)).decode(), workers)
        context.progress.workers = count
        return _score_all(submit, IN_FLIGHT * count, shards, context)
    finally:
        if started:
            ray.shutdown()


def _submit_task(jobs: str, workers: int | None) -> tuple[Submit, int]:
    """One task per shard; Ray runs it where a core is free."""
    task = ray.remote(num_cpus=1, max_retries=-1)(score_on_node)
    return functools.partial(task.remote, jobs), workers or max(1, int(ray.cluster_resources().get("CPU", 1)))


def _submit_to_actors(jobs: str, workers: int | None) -> tuple[Submit, int]:
    """One actor per GPU, each with one session for each model."""
    count = workers or max(1, int(ray.cluster_resources().get("GPU", 1)))
    actor: Any = ray.remote(num_gpus=1, max_restarts=-1, max_task_retries=-1)(GpuScorer)
    actors = itertools.cycle([actor.remote() for _ in range(count)])
    return lambda shard: next(actors).score.remote(jobs, shard), count


class GpuScorer:
    def score(self, jobs: str, shard: SharedShard) -> ShardReport:
        return score_on_node(jobs, shard)


def score_on_node(jobs: str, shard: SharedShard) -> ShardReport:
    """Score one shard; runs on a node of the cluster."""
    chunks: list[tuple[int, int]] = []
    outcome = try_score(_context(jobs), shard, lambda rows, rejects: chunks.append((rows, rejects)))
    return outcome, sum(rows for rows, _ in chunks), sum(rejects for _, rejects in chunks)


@functools.lru_cache(maxsize=1)
def _context(jobs: str) -> Context:
    return Context(JOBS.validate_json(jobs))


def _score_all(submit: Submit, limit: int, shards: Iterator[SharedShard], context: EngineContext) -> EngineResult:
    result = EngineResult()
    in_flight = {submit(shard): shard for shard in itertools.islice(shards, limit)}
    locked: list[SharedShard] = []
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
            outcome, rows, rejects = ray.get(ready)
        except ray.exceptions.RayError as error:
            outcome = ShardOutcome(
                status="failed", detail=f"{shard.first.title}: {str(error).strip().splitlines()[-1]}"
            )
        match outcome.status:
            case "locked":
                locked.append(shard)
            case "done":
                context.progress.add_done(rows, rejects)
                result.computed.update(outcome.computed)
            case _:
                result.failures += [outcome.detail] if outcome.detail not in result.failures else []
                result.stopped = result.stopped or outcome.status == "failed"
        if not result.stopped:
            in_flight |= {submit(shard): shard for shard in itertools.islice(shards, 1)}
    return result
