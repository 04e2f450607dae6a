"""Queues and requests of the fake session, for tests of the engine's parts."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from service.engine.batching.backlog import Backlog
from service.engine.batching.collate import Collator
from service.engine.batching.queue import BatchQueue
from service.engine.batching.request import Request
from service.engine.context import RequestContext
from service.engine.limits import Limits
from service.engine.metrics import Counters
from tests.service.engine.fakes import LOOP, FakeSession


def make_queue(
    session: Any = None, *, collator: Collator | None = None, backlog: Backlog | None = None, **limits: Any
) -> BatchQueue:
    collator = collator or Collator((session or FakeSession()).manifest)
    return BatchQueue(collator, Limits(**limits), Counters(model="m", version="1"), backlog or Backlog(1))


def make_context(
    deadline: float, *, received_at: float = 0.0, client: str = "", route: str = "/path", default: bool = False
) -> RequestContext:
    timeout_s = deadline - received_at
    return RequestContext(received_at, None if default else timeout_s, timeout_s, client, route)


def make_request(
    queue: BatchQueue,
    inputs: Mapping[str, Any],
    *,
    session: Any = None,
    outputs: Sequence[str] | None = None,
    deadline: float = 9.0,
    arrived_at: float = 0.0,
    items: str = "",
    loop: asyncio.AbstractEventLoop = LOOP,
    context: RequestContext | None = None,
) -> Request:
    return Request(
        session or FakeSession(),  # type: ignore[arg-type]
        queue,
        inputs,
        outputs,
        num_rows=len(next(iter(inputs.values()))),
        num_steps=queue.collator.num_steps(inputs),
        items=items,
        arrived_at=arrived_at,
        loop=loop,
        context=context or make_context(deadline),
    )
