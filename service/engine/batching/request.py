"""One call of the engine: rows that came together, and the answer that they wait for.

Its rows may be computed apart and in any order. The answer is in the order of the rows, and it is an answer or one
error, never a part of an answer. The future is resolved on the event loop of the caller only.
"""

import asyncio
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import numpy as np

from service.engine.batching.collate import Array, Collator, NotFiniteError, Tensors
from service.engine.batching.outputs import NotFiniteOutputError
from service.engine.context import RequestContext
from service.engine.metrics import Counters
from service.engine.process.shortage import is_out_of_memory
from service.engine.sessions.session import Session
from service.errors import EkibenError, Fault, lacks_memory, not_finite

Rows = Any  # a slice, or int64 row numbers
EMPTY: dict[Any, Any] = {}  # never written to: most requests need no dictionary of their own


class RequestStatus(Enum):
    """Rows of a request are computed only while it is PENDING."""

    PENDING = "pending"
    DONE = "done"  # it has its answer, or the error that its rows caused
    CANCELLED = "cancelled"
    EXPIRED = "expired"


PENDING = RequestStatus.PENDING  # looked up several times a request


class RequestQueue(Protocol):
    """The queue that a request joins, as seen from the request."""

    collator: Collator
    counters: Counters

    def discard(self, request: "Request", status: RequestStatus) -> int:
        """Compute nothing more of a request; return how many of its rows were still queued."""


class Request:
    __slots__ = (
        "arrived_at", "collator", "context", "deadline", "failures", "future", "inputs", "items", "loop", "not_finite",
        "num_rows", "num_steps", "outputs", "pending_rows", "predicted_s", "queue", "session", "slices", "status",
        "timer", "values",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        queue: RequestQueue,
        inputs: Tensors,
        outputs: Sequence[str] | None,
        *,
        num_rows: int,
        num_steps: int,
        items: str,
        arrived_at: float,
        loop: asyncio.AbstractEventLoop,
        context: RequestContext,
    ) -> None:
        self.session = session
        self.queue = queue
        self.collator = queue.collator
        self.inputs = inputs
        self.outputs = outputs
        self.num_rows = num_rows
        self.num_steps = num_steps
        self.items = items  # JSON pointer of the list that holds the rows
        self.arrived_at = arrived_at
        self.context = context
        self.deadline = context.deadline
        self.predicted_s = 0.0  # from arrival to answer; 0 if unknown
        self.loop = loop
        self.future: asyncio.Future[dict[str, Array]] = loop.create_future()
        self.status = PENDING
        self.pending_rows = num_rows
        self.timer: dict[Request, None] | None = None  # the requests that expire at the same tick
        self.slices: Sequence[RequestSlice] = ()
        self.values: dict[str, Array] = EMPTY
        self.failures: dict[int, Exception] = EMPTY  # by row
        self.not_finite: dict[int, str] = EMPTY  # by row, the output that is not finite

    def deliver(self, part: "RequestSlice", result: dict[str, Array] | Exception) -> None:
        """Take the results of a slice, with rows and steps as in its batch, or the error that its rows caused."""
        if self.future.done():
            return
        self.pending_rows -= part.num_rows
        if isinstance(result, Exception):
            self._add_failures(np.arange(self.num_rows)[part.rows].tolist(), result)
        else:
            restored = self.collator.restore_steps(result, self.num_steps)
            if part.is_whole:
                self.values = restored
            else:
                self._place(part.rows, restored)
        if not self.pending_rows:
            if self.failures or self.not_finite:
                self.fail(self._error())
            else:
                self.on_done()
                self.future.set_result(self.values)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.on_done()
            self.future.set_exception(error)

    def on_done(self) -> None:
        """Mark a pending request DONE and take it off its deadline timer."""
        if self.status is PENDING:
            self.status = RequestStatus.DONE
        if self.timer is not None:
            del self.timer[self]
            self.timer = None

    def _place(self, rows: Rows, part: Mapping[str, Array]) -> None:
        if not self.values:
            self.values = {
                name: np.zeros((self.num_rows, *value.shape[1:]), value.dtype) for name, value in part.items()
            }
        for name, value in part.items():
            self.values[name][rows] = value

    def _add_failures(self, rows: list[int], error: Exception) -> None:
        """Record the error of a slice that has these rows."""
        if isinstance(error, NotFiniteOutputError):
            self.not_finite = self.not_finite | {rows[i]: name for i, name in error.outputs.items()}
        else:
            failed = [rows[i] for i in error.rows] if isinstance(error, NotFiniteError) else rows
            self.failures = self.failures | dict.fromkeys(failed, error)

    def _error(self) -> EkibenError:
        model, total = self.collator.model, self.num_rows
        if bad := sorted(row for row, error in self.failures.items() if isinstance(error, NotFiniteError)):
            faults = tuple(Fault(pointer=f"{self.items}/{row}", detail="expected finite numbers") for row in bad)
            return EkibenError("invalid-request", f"{model}: NaN or infinity in {len(bad)} of {total} items", faults)
        if not self.failures:
            return not_finite(model, self.not_finite, [f"{self.items}/{row}" for row in range(total)])
        rows = sorted(self.failures)
        if any(is_out_of_memory(error) for error in self.failures.values()):
            return lacks_memory(model)
        detail = f"{model}: the model failed on {len(rows)} of {total} items"
        faults = tuple(Fault(pointer=f"{self.items}/{row}", detail="the model failed on this item") for row in rows)
        error = EkibenError("internal", detail, faults)
        error.__cause__ = self.failures[rows[0]]
        return error


class RequestSlice:
    """Rows of one request that wait together. `longest` and `steps` (their sum) are 0 where all rows have one size."""

    __slots__ = (
        "deadline", "is_queued", "is_whole", "key", "longest", "num_rows", "request", "rows", "steps", "work_s",
    )  # fmt: skip

    def __init__(self, request: Request, key: Any, rows: Rows, num_rows: int, longest: int = 0, steps: int = 0) -> None:  # noqa: PLR0917
        self.request = request
        self.deadline = request.deadline
        self.key = key  # slices with equal keys may share a batch
        self.rows = rows
        self.num_rows = num_rows
        self.longest = longest
        self.steps = steps
        self.work_s = 0.0  # of computing, predicted
        self.is_whole = num_rows == request.num_rows  # all rows of the request, in their order
        self.is_queued = False

    def inputs(self) -> Tensors:
        """Its rows of the inputs."""
        inputs = self.request.inputs
        return inputs if self.is_whole else {name: value[self.rows] for name, value in inputs.items()}

    def split(self, num_rows: int) -> "RequestSlice":
        """Cut off the first `num_rows` rows, fewer than there are."""
        rows = np.arange(self.request.num_rows)[self.rows]
        head, rest = (self._of(part) for part in (rows[:num_rows], rows[num_rows:]))
        self.rows, self.num_rows, self.longest, self.steps = rest.rows, rest.num_rows, rest.longest, rest.steps
        self.work_s, self.is_whole = rest.work_s, False
        return head

    def _of(self, rows: Array) -> "RequestSlice":
        if self.request.collator.is_ragged:
            lengths = self.request.inputs["lengths"][rows]
            part = RequestSlice(self.request, self.key, rows, rows.size, int(lengths.max()), int(lengths.sum()))
        else:
            part = RequestSlice(self.request, self.key, rows, rows.size, self.longest, self.longest * rows.size)
        part.work_s = self.work_s * rows.size / self.num_rows
        return part
