"""The Ray engine: each shard is a task on a cluster, or a call of one actor per GPU.

Every node must see the output folder at the same path. Ray runs a task again if its node is lost; the ledger makes that
harmless. Ray decides how many nodes there are: shards that wait have an autoscaler add some, and the shards in flight
follow.
"""

import contextlib
import functools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import ray

import service
from service.scoring.engines.cluster import ClusterOptions
from service.scoring.engines.engine import POLL_S, EngineContext, EngineResult, ShardOutcome, try_score
from service.scoring.job import JOBS, Job, ScoringError
from service.scoring.plan import SharedShard, format_error
from service.scoring.shard import Context

# Shards in flight per core or GPU, so that an autoscaler sees shards that wait.
IN_FLIGHT = 2
# How often the size of the cluster is asked for.
RESIZE_S = 1.0
# What became of one shard, its rows and rejected rows.
ShardReport = tuple[ShardOutcome, int, int]


def run_ray(
    jobs: Sequence[Job], shards: Iterator[SharedShard], *, workers: int | None, context: EngineContext
) -> EngineResult:
    """Score every shard on a cluster: that of the options, of RAY_ADDRESS, or one of this machine alone."""
    options = context.cluster
    started = not ray.is_initialized()
    if started:
        _connect(options)
    elif options != ClusterOptions():
        raise ScoringError("--ray-address, --ray-runtime-env: this process is connected to a cluster already")
    try:
        content = JOBS.dump_json(tuple(_on_nodes(job, options) for job in jobs)).decode()
        scorers = _Actors(content, workers) if jobs[0].device == "cuda" else _Tasks(content, workers)
        return _score_all(scorers, shards, context)
    finally:
        if started:
            ray.shutdown()


def _connect(options: ClusterOptions) -> None:
    # Nodes that are started here inherit the path.
    root = str(Path(service.__file__).parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    address = options.address or os.environ.get("RAY_ADDRESS")
    # What a cluster that is started here has.
    arguments: dict[str, Any] = {"include_dashboard": False} if address in {None, "", "local"} else {}
    try:
        ray.init(address or None, log_to_driver=False, runtime_env=dict(options.runtime_env) or None, **arguments)
    except Exception as error:
        place = f"--ray-address {address}" if address else "Ray on this machine"
        problem = f"cannot connect, or the runtime environment is invalid: {_reason(error)}"
        raise ScoringError(f"{place}: {problem}{_token_hint(address)}") from error


def _reason(error: Exception) -> str:
    """One line; a server for clients sends a traceback, whose last line is the reason."""
    first, *others = str(error).strip().splitlines() or [""]
    return f"{format_error(error)} {others[-1]}" if others and first.endswith(":") else format_error(error)


def _token_hint(address: str | None) -> str:
    """What to do if the cluster has a token: Ray sends none to an address unless RAY_AUTH_MODE says so."""
    if not address or os.environ.get("RAY_AUTH_MODE") == "token":
        return ""
    return "; a cluster that `ray start` has protected by a token needs RAY_AUTH_MODE=token"


def _on_nodes(job: Job, options: ClusterOptions) -> Job:
    """The job with bundles relative to the working directory of the tasks if that is a copy of a folder with them."""
    working_dir = options.runtime_env.get("working_dir")
    if working_dir is None or not Path(working_dir).is_dir():
        return job
    folder = Path(working_dir).absolute()
    inside = job.bundles.is_relative_to(folder)
    return job.model_copy(update={"bundles": job.bundles.relative_to(folder)}) if inside else job


class _Scorers(Protocol):
    """What scores shards on the cluster. `count` of them work at once, on at most `capacity` shards in flight."""

    count: int
    capacity: int

    def submit(self, shard: SharedShard) -> Any:
        """Send a shard; return the reference of its report."""
        ...

    def release(self, reference: Any) -> None:
        """The shard of this reference has ended."""
        ...

    def resize(self) -> None:
        """Follow the size of the cluster."""
        ...


class _Tasks:
    """One task per shard; Ray runs it where a core is free. `workers` is the limit, by default all cores."""

    def __init__(self, jobs: str, workers: int | None) -> None:
        self._jobs, self._workers = jobs, workers
        self._task = ray.remote(num_cpus=1, max_retries=-1)(score_on_node)
        self.resize()

    def submit(self, shard: SharedShard) -> Any:
        return self._task.remote(self._jobs, shard)

    def release(self, reference: Any) -> None:
        """Ray knows which core is free."""

    def resize(self) -> None:
        self.count = self._workers or max(1, int(ray.cluster_resources().get("CPU", 0)))
        self.capacity = self._workers or IN_FLIGHT * self.count


class _Actors:
    """Actors with one GPU and one session for each model. `workers` is their number, by default that of the GPUs.

    A shard is sent to an actor that has its GPU; an actor that waits for one shows an autoscaler what is missing.
    """

    def __init__(self, jobs: str, workers: int | None) -> None:
        self._jobs, self._workers = jobs, workers
        self._actor: Any = ray.remote(num_gpus=1, max_restarts=-1, max_task_retries=-1)(GpuScorer)
        self._waiting: dict[Any, Any] = {}
        self._ready: list[Any] = []
        self._assigned: dict[Any, int] = {}
        self.resize()

    def submit(self, shard: SharedShard) -> Any:
        assigned = Counter(self._assigned.values())
        number = min(range(len(self._ready)), key=lambda i: assigned[i])
        reference = self._ready[number].score.remote(self._jobs, shard)
        self._assigned[reference] = number
        return reference

    def release(self, reference: Any) -> None:
        del self._assigned[reference]

    def resize(self) -> None:
        target = self._workers or max(1, int(ray.cluster_resources().get("GPU", 0)))
        for _ in range(target - len(self._ready) - len(self._waiting)):
            actor = self._actor.remote()
            self._waiting[actor.ready.remote()] = actor
        if self._waiting:
            started, _ = ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
            self._ready += [self._waiting.pop(reference) for reference in started]
        self.count, self.capacity = len(self._ready), IN_FLIGHT * len(self._ready)


class GpuScorer:
    def ready(self) -> None:
        """Return when the actor has its GPU."""

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


def _score_all(scorers: _Scorers, shards: Iterator[SharedShard], context: EngineContext) -> EngineResult:
    result = EngineResult()
    in_flight: dict[Any, SharedShard] = {}
    # Shards that another process scores, and those of them whose turn it is to be tried again.
    locked, again = list[SharedShard](), list[SharedShard]()
    is_planned, resized_at = False, time.monotonic()
    while True:
        context.progress.workers = scorers.count
        result.stopped = result.stopped or context.cancellation.requested
        if context.cancellation.expired:
            result.dropped = len(in_flight)
            for task in in_flight:
                with contextlib.suppress(ValueError):  # a method of an actor, which ends with the cluster
                    ray.cancel(task, force=True)
            return result
        while not result.stopped and len(in_flight) < scorers.capacity and not (is_planned and not again):
            shard = again.pop(0) if again else next(shards, None)
            is_planned = shard is None or is_planned
            if shard is not None:
                in_flight[scorers.submit(shard)] = shard
        if in_flight:
            done, _ = ray.wait(list(in_flight), num_returns=1, timeout=POLL_S)
            for reference in done:
                scorers.release(reference)
                shard = in_flight.pop(reference)
                if _report(reference, shard, result, context).status == "locked":
                    locked.append(shard)
        elif result.stopped or (is_planned and not locked and not again):
            return result
        else:
            # Locked shards are all that is left, or no GPU is there yet.
            time.sleep(POLL_S)
            locked, again = [], locked
        if time.monotonic() - resized_at > RESIZE_S:
            scorers.resize()
            resized_at = time.monotonic()


def _report(reference: Any, shard: SharedShard, result: EngineResult, context: EngineContext) -> ShardOutcome:
    """Take the report of a shard that has ended."""
    try:
        outcome, rows, rejects = ray.get(reference)
    except ray.exceptions.RayError as error:
        outcome, rows, rejects = _lost(shard, error), 0, 0
    if outcome.status == "done":
        context.progress.add_done(rows, rejects)
        result.computed.update(outcome.computed)
    elif outcome.status != "locked":
        result.failures += [outcome.detail] if outcome.detail not in result.failures else []
        result.stopped = result.stopped or outcome.status == "failed"
    return outcome


def _lost(shard: SharedShard, error: Exception) -> ShardOutcome:
    return ShardOutcome(status="failed", detail=f"{shard.first.title}: {str(error).strip().splitlines()[-1]}")
