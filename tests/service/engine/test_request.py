"""An answer or one error, complete and in order."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from service.engine.admission import Admission
from service.engine.batcher import Batcher
from service.engine.counters import Counters
from service.engine.layout import Layout
from service.engine.limits import Limits
from service.engine.request import Piece, Request
from service.errors import EkibenError
from tests.service.engine.fakes import FakeSession, rows

Ask = Callable[[list[int]], Request]


def settled(lengths: list[int], give: Callable[[Request, list[Piece]], None]) -> dict[str, np.ndarray]:
    """The answer of a request of these lengths after `give`."""

    async def scenario() -> dict[str, np.ndarray]:
        session = FakeSession()
        queue = Batcher(Layout(session.manifest), Limits(), Counters(model="m", version="1"), Admission(1))
        loop = asyncio.get_running_loop()
        request = Request(
            session,  # type: ignore[arg-type]
            queue,
            rows(*lengths),
            None,
            num_rows=len(lengths),
            items="/rows",
            arrived=0.0,
            deadline=9.0,
            loop=loop,
        )
        give(request, queue.pieces(request))
        assert request.future.done()
        return await request.future

    return asyncio.run(scenario())


def numbers(piece: Piece, steps: int) -> dict[str, np.ndarray]:
    rows = np.arange(piece.request.num_rows)[piece.rows]
    return {"logits": np.tile(rows[:, None, None], (1, steps, 3)).astype(np.float32)}


def test_parts_are_put_together_in_the_order_of_the_rows() -> None:
    def give(request: Request, pieces: list[Piece]) -> None:
        assert len(pieces) == 4
        for piece in reversed(pieces):
            assert not request.future.done()
            request.take(piece, numbers(piece, piece.longest))

    answer = settled([30, 5, 15, 6, 30], give)
    assert answer["logits"].shape == (5, 30, 3)
    np.testing.assert_array_equal(answer["logits"][:, 0, 0], [0, 1, 2, 3, 4])
    assert not answer["logits"][1, 5:].any()


def test_a_batch_longer_than_the_request_is_cut_back() -> None:
    answer = settled([5], lambda request, pieces: request.take(pieces[0], numbers(pieces[0], 8)))
    assert answer["logits"].shape == (1, 5, 3)


def test_one_failed_row_fails_the_request_when_all_is_known() -> None:
    def give(request: Request, pieces: list[Piece]) -> None:
        request.take(pieces[0], RuntimeError("first"))
        assert not request.future.done()
        request.take(pieces[1], numbers(pieces[1], 5))

    with pytest.raises(EkibenError, match="fails on 1 of 2 items") as caught:
        settled([30, 5], give)
    assert [fault.pointer for fault in caught.value.faults] == ["/rows/1"]
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_what_comes_after_the_end_is_dropped() -> None:
    def give(request: Request, pieces: list[Piece]) -> None:
        request.fail(EkibenError("timeout", "late"))
        request.take(pieces[0], numbers(pieces[0], 5))
        request.fail(EkibenError("timeout", "later"))

    with pytest.raises(EkibenError, match=r"late$"):
        settled([5], give)


def test_a_piece_splits_into_pieces_that_know_their_steps() -> None:
    def give(request: Request, pieces: list[Piece]) -> None:
        (piece,) = pieces
        piece.price_s = 3.0
        head = piece.split(1)
        assert (head.count, head.longest, head.steps, head.price_s) == (1, 21, 21, pytest.approx(1.0))
        assert (piece.count, piece.longest, piece.steps, piece.price_s) == (2, 22, 44, pytest.approx(2.0))
        request.take(piece, numbers(piece, 22))
        request.take(head, numbers(head, 21))

    answer = settled([21, 22, 22], give)
    np.testing.assert_array_equal(answer["logits"][:, 0, 0], [0, 1, 2])
