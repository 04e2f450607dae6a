"""Running a batch: a value or an error for every row, whatever its neighbours do.

A batch that fails is cut in two, and each half tried again, until the rows that make the model fail stand alone.
"""

import logging
from collections.abc import Mapping, Sequence

from service.engine.layout import Array
from service.engine.request import Piece

Outcome = tuple[Piece, Mapping[str, Array] | Exception]

log = logging.getLogger(__name__)


def compute(pieces: Sequence[Piece]) -> list[Outcome]:
    """The outcome of every row; a failure is of a piece of one row. All pieces are of one session."""
    try:
        return _run(pieces)
    except Exception as error:  # noqa: BLE001 - onnxruntime raises bare subclasses of Exception
        head, rest = _halves(pieces)
        if not rest:
            log.error("%s: one row fails: %s", head[0].request.layout.where, error)
            return [(head[0], error)]
        return compute(head) + compute(rest)


def _run(pieces: Sequence[Piece]) -> list[Outcome]:
    first = pieces[0].request
    if len(pieces) == 1 and pieces[0].count == first.num_rows:
        return [(pieces[0], first.session.run(first.inputs, first.outputs))]
    num_rows = sum(piece.count for piece in pieces)
    parts = [(piece.request.inputs, piece.rows, piece.count) for piece in pieces]
    batch = first.layout.gather(parts, num_rows, max(piece.longest for piece in pieces))
    wanted = {None if piece.request.outputs is None else tuple(piece.request.outputs) for piece in pieces}
    answer = first.session.run(batch, _union(wanted))
    outcomes: list[Outcome] = []
    at = 0
    for piece in pieces:
        names = answer if piece.request.outputs is None else piece.request.outputs
        outcomes.append((piece, {name: answer[name][at : at + piece.count] for name in names}))
        at += piece.count
    return outcomes


def _union(wanted: set[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    if None in wanted:
        return None
    return tuple(dict.fromkeys(name for names in wanted if names is not None for name in names))


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
