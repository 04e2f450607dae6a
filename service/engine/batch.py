"""Rows of several requests that run together: a value or an error for every row, whatever its neighbours do.

A batch that fails is cut in two, and each half tried again, until the rows that make the model fail stand alone. Pieces
that hold a number which is not finite are taken out before.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.engine.layout import Array, NotFiniteError
from service.engine.request import Piece, Request

if TYPE_CHECKING:
    from service.engine.batcher import Batcher

Outcome = tuple[Piece, dict[str, Array] | Exception]

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True, eq=False)
class Batch:
    """Pieces that run together, and requests whose pieces would have and came too late."""

    batcher: "Batcher"
    pieces: list[Piece] = field(default_factory=list)
    num_rows: int = 0
    longest: int = 0
    steps: int = 0  # of all rows, without padding
    expired: list[Request] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.num_rows += piece.count
        self.steps += piece.steps
        self.longest = max(self.longest, piece.longest)


def compute(pieces: Sequence[Piece]) -> list[Outcome]:
    """The outcome of every row; the model fails on pieces of one row. All pieces are of one session."""
    try:
        return _run(pieces)
    except NotFiniteError:
        return _without_bad_numbers(pieces)
    except Exception as error:  # noqa: BLE001 - onnxruntime raises bare subclasses of Exception
        head, rest = _halves(pieces)
        if not rest:
            log.error("%s: one row fails: %s", head[0].request.layout.where, error)
            return [(head[0], error.with_traceback(None))]  # a trace would lead back here
        return compute(head) + compute(rest)


def _run(pieces: Sequence[Piece]) -> list[Outcome]:
    first = pieces[0].request
    layout = first.layout
    if len(pieces) == 1 and pieces[0].is_whole:
        layout.check_numbers(first.inputs)
        return [(pieces[0], first.session.run(first.inputs, first.outputs))]
    batch = layout.gather([piece.inputs() for piece in pieces], max(piece.longest for piece in pieces))
    layout.check_numbers(batch)
    answer = first.session.run(batch, _union(pieces))
    outcomes: list[Outcome] = []
    at = 0
    for piece in pieces:
        names = piece.request.outputs
        end = at + piece.count
        outcomes.append((piece, {name: answer[name][at:end] for name in (answer if names is None else names)}))
        at = end
    return outcomes


def _without_bad_numbers(pieces: Sequence[Piece]) -> list[Outcome]:
    """The batch held some: refuse the pieces that they are in, and run the others."""
    refused: list[Outcome] = []
    sound: list[Piece] = []
    for piece in pieces:
        try:
            piece.request.layout.check_numbers(piece.inputs())
            sound.append(piece)
        except NotFiniteError as error:
            refused.append((piece, error.with_traceback(None)))
    return refused + (compute(sound) if sound else [])


def _union(pieces: Sequence[Piece]) -> Sequence[str] | None:
    """The outputs that any of the requests asks for."""
    names = pieces[0].request.outputs
    if all(piece.request.outputs == names for piece in pieces):
        return names
    wanted: dict[str, None] = {}
    for piece in pieces:
        if piece.request.outputs is None:
            return None
        wanted.update(dict.fromkeys(piece.request.outputs))
    return tuple(wanted)


def _halves(pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Two halves by rows; the second is empty if there is one row."""
    if len(pieces) > 1:
        middle = len(pieces) // 2
        return list(pieces[:middle]), list(pieces[middle:])
    (piece,) = pieces
    if piece.count == 1:
        return [piece], []
    head = piece.split(piece.count // 2)
    return [head], [piece]
