"""One call of the engine: rows that came together, and the answer that they wait for.

Its rows may be computed apart and in any order; the answer is in the order of the rows, and it is an answer or one
error, never a part of an answer. Settled on its caller's event loop only.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from service.engine.appointments import Visitor
from service.engine.layout import Array, NotFiniteError, Tensors
from service.engine.sessions.session import Session
from service.errors import EkibenError, Fault

if TYPE_CHECKING:
    from service.engine.batcher import Batcher

Rows = Any  # a slice, or int64 row numbers
NOTHING: dict[Any, Any] = {}  # never written to: most requests need no dictionary of their own


class Request:
    __slots__ = (
        "alarm", "arrived", "batcher", "deadline", "failures", "foretold_s", "future", "gone", "inputs", "items",
        "layout", "loop", "missing", "num_rows", "num_steps", "outputs", "pieces", "session", "values", "visitor",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        batcher: "Batcher",
        inputs: Tensors,
        outputs: Sequence[str] | None,
        *,
        num_rows: int,
        items: str,
        arrived: float,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        visitor: Visitor | None = None,
    ) -> None:
        self.session = session
        self.batcher = batcher
        self.layout = batcher.layout
        self.inputs = inputs
        self.outputs = outputs
        self.num_rows = num_rows
        self.num_steps = self.layout.num_steps(inputs)
        self.items = items
        self.arrived = arrived
        self.deadline = deadline
        self.foretold_s = 0.0  # from arrival to answer; 0: nobody knew
        self.loop = loop
        self.visitor = visitor  # None: nobody that could be told to come back
        self.future: asyncio.Future[dict[str, Array]] = loop.create_future()
        self.missing = num_rows  # rows without a result
        self.gone = False  # nothing of it is to be computed any more
        self.alarm: dict[Request, None] | None = None  # who is given up at the same moment
        self.pieces: Sequence[Piece] = ()  # as it was cut
        self.values: dict[str, Array] = NOTHING
        self.failures: dict[int, Exception] = NOTHING  # by row

    def take(self, piece: "Piece", result: dict[str, Array] | Exception) -> None:
        """Results of a piece, rows and steps as in the batch, or why it has none."""
        if self.future.done():
            return
        self.missing -= piece.count
        if isinstance(result, Exception):
            rows = np.arange(self.num_rows)[piece.rows]
            failed = rows[result.rows] if isinstance(result, NotFiniteError) else rows
            self.failures = self.failures | dict.fromkeys(failed.tolist(), result)
        else:
            fitted = self.layout.fit(result, self.num_steps)
            if piece.is_whole:
                self.values = fitted
            else:
                self._place(piece.rows, fitted)
        if not self.missing:
            if self.failures:
                self.fail(self._error())
            else:
                self.settled()
                self.future.set_result(self.values)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.settled()
            self.future.set_exception(error)

    def settled(self) -> None:
        """Nobody waits any more."""
        if self.alarm is not None:
            del self.alarm[self]
            self.alarm = None

    def _place(self, rows: Rows, part: Mapping[str, Array]) -> None:
        if not self.values:
            self.values = {
                name: np.zeros((self.num_rows, *value.shape[1:]), value.dtype) for name, value in part.items()
            }
        for name, value in part.items():
            self.values[name][rows] = value

    def _error(self) -> EkibenError:
        where = self.layout.where
        if bad := sorted(row for row, error in self.failures.items() if isinstance(error, NotFiniteError)):
            faults = tuple(Fault(pointer=f"{self.items}/{row}", detail="expected finite numbers") for row in bad)
            return EkibenError("invalid-request", f"{where}: {len(bad)} items are not finite", faults)
        rows = sorted(self.failures)
        detail = f"{where}: the model fails on {len(rows)} of {self.num_rows} items"
        faults = tuple(Fault(pointer=f"{self.items}/{row}", detail="the model fails on this item") for row in rows)
        error = EkibenError("internal", detail, faults)
        error.__cause__ = self.failures[rows[0]]
        return error


class Piece:
    """Rows of one request that wait together. `longest` and `steps` (their sum) are 0 where all rows have one size."""

    __slots__ = ("count", "deadline", "is_queued", "is_whole", "key", "longest", "price_s", "request", "rows", "steps")

    def __init__(self, request: Request, key: Any, rows: Rows, count: int, longest: int = 0, steps: int = 0) -> None:  # noqa: PLR0917
        self.request = request
        self.deadline = request.deadline
        self.key = key
        self.rows = rows
        self.count = count
        self.longest = longest
        self.steps = steps
        self.price_s = 0.0
        self.is_whole = count == request.num_rows  # all rows of it, in their order
        self.is_queued = False

    def inputs(self) -> Tensors:
        """Its rows of the inputs."""
        inputs = self.request.inputs
        return inputs if self.is_whole else {name: value[self.rows] for name, value in inputs.items()}

    def split(self, count: int) -> "Piece":
        """Cut off the first `count` rows, fewer than there are."""
        rows = np.arange(self.request.num_rows)[self.rows]
        head, rest = (self._of(part) for part in (rows[:count], rows[count:]))
        self.rows, self.count, self.longest, self.steps = rest.rows, rest.count, rest.longest, rest.steps
        self.price_s, self.is_whole = rest.price_s, False
        return head

    def _of(self, rows: Array) -> "Piece":
        if self.request.layout.ragged:
            lengths = self.request.inputs["lengths"][rows]
            piece = Piece(self.request, self.key, rows, rows.size, int(lengths.max()), int(lengths.sum()))
        else:
            piece = Piece(self.request, self.key, rows, rows.size, self.longest, self.longest * rows.size)
        piece.price_s = self.price_s * rows.size / self.count
        return piece
