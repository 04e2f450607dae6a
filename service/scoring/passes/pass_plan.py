"""The plan of a pass: several jobs over one input, which differ in their models alone.

Invariant: each job has the plan that it would have alone. Shards of several jobs that hold the same rows are one shared
shard, which is scored at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from service.scoring.input.files import InputFile
from service.scoring.job import Job
from service.scoring.plan import Planned, Shard, SharedShard, plan, reading_of


def plan_pass(
    jobs: Sequence[Job], files: Sequence[InputFile], numbers: Mapping[str, int] | None = None
) -> Iterator[Planned]:
    """Yield the plan of all jobs, whose numbers are their positions; `numbers` are those of the files, as for `plan`.

    Jobs that read the same columns are planned once. Others are planned beside them, file by file.
    """
    by_reading: dict[tuple[Any, ...], dict[int, Job]] = {}
    for number, job in enumerate(jobs):
        by_reading.setdefault(reading_of(job), {})[number] = job
    plans = [plan(group, files, numbers) for group in by_reading.values()]
    while plans:
        # All of them are at the beginning of the same file.
        within_file = list(plans)
        while within_file:
            items = [(planned, next(planned, None)) for planned in within_file]
            yield from _shared([item for _, item in items if item is not None])
            within_file = [planned for planned, item in items if isinstance(item, SharedShard)]
            ended = [planned for planned, item in items if item is None]
            plans = [planned for planned in plans if planned not in ended]


def _shared(items: Sequence[Planned]) -> Iterator[Planned]:
    """Put the shards that hold the same rows together."""
    if len(items) == 1:
        yield items[0]
        return
    by_rows: dict[str, dict[int, Shard]] = {}
    for item in items:
        if isinstance(item, SharedShard):
            rows = repr(replace(item.first.span, digest=""))
            by_rows.setdefault(rows, {}).update(item.shards)
    yield from (SharedShard(shards=dict(sorted(shards.items()))) for shards in by_rows.values())
    yield from (item for item in items if not isinstance(item, SharedShard))
