"""Quick computations run on the event loop itself, without a change of threads, for INLINE_BUDGET_S per turn."""

import asyncio
import time
from collections.abc import Sequence

from service.engine.batching.collate import Array, Tensors
from service.engine.batching.queue import BatchQueue
from service.engine.batching.request import Request
from service.engine.limits import INLINE_BUDGET_S
from service.engine.scheduling.executor import Executor
from service.engine.sessions.session import Session

Arrivals = list[tuple[BatchQueue, Request]]


class InlineRunner:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def run_request(
        self,
        queue: BatchQueue,
        session: Session,
        inputs: Tensors,
        outputs: Sequence[str] | None,
        *,
        num_rows: int,
        num_steps: int,
    ) -> dict[str, Array] | None:
        """Run a request at once, without a batch; None if the model fails or a number in or out is not finite."""
        started_at = time.monotonic()
        try:
            queue.collator.check_finite(inputs)
            answer = session.run(inputs, outputs)
            if queue.collator.output_check.bad_rows(answer, inputs):
                return None
        except Exception:  # noqa: BLE001 - the batched path finds the row that is to blame
            return None
        ended_at = time.monotonic()
        with self._executor.lock:
            queue.record_inline(inputs, num_rows, num_steps, ended_at - started_at)
        return answer

    def run_arrivals(self, arrivals: Arrivals, loop: asyncio.AbstractEventLoop) -> tuple[int, float]:
        """Run requests that arrived together, if they form quick batches; returns how many ran, and the budget left."""
        executor, budget_s, num_run = self._executor, INLINE_BUDGET_S, 0
        if arrivals:
            queue = arrivals[0][0]
            requests = [request for _, request in arrivals]
            for batch in queue.inline_batches(requests, beside_threads=executor.slots > 1):
                if budget_s <= 0 or not executor.claim(batch):
                    break
                num_run += len(batch.slices)
                budget_s -= executor.compute(batch, time.monotonic(), loop=loop)
        return num_run, budget_s

    def drain_queues(self, loop: asyncio.AbstractEventLoop, budget_s: float) -> None:
        """Run queued batches as long as they fit the budget; threads compute the others."""
        while budget_s > 0:
            now = time.monotonic()
            batch = self._executor.claim_queued(now, budget_s)
            if batch is None:
                break
            budget_s -= self._executor.compute(batch, now, loop=loop)
        self._executor.wake()
