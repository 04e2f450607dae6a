"""A value or an error for every row, whatever its neighbours do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.admission import Admission
from service.engine.batch import compute
from service.engine.batcher import Batcher
from service.engine.counters import Counters
from service.engine.layout import Layout, NotFiniteError
from service.engine.limits import Limits
from service.engine.request import Piece, Request
from tests.service.engine.fakes import LOOP, POISON, FakeSession, rows


def request(session: FakeSession, firsts: list[int], outputs: tuple[str, ...] | None = None) -> Request:
    queue = Batcher(Layout(session.manifest), Limits(), Counters(model="m", version="1"), Admission(1))
    inputs = rows(*[5] * len(firsts))
    inputs["series"][:, 0, 0] = firsts
    return Request(
        session, queue, inputs, outputs, num_rows=len(firsts), items="/rows", arrived=0.0, deadline=9.0, loop=LOOP
    )  # type: ignore[arg-type]


def _pieces(*requests: Request) -> list[Piece]:
    return [piece for one in requests for piece in one.batcher.pieces(one)]


@given(st.lists(st.lists(st.sampled_from([1, 2, 3, POISON]), min_size=1, max_size=5), min_size=1, max_size=6))
@settings(deadline=None)
def test_only_the_rows_that_fail_have_errors(groups: list[list[int]]) -> None:
    session = FakeSession()
    requests = [request(session, group, ("logits", "next_h")) for group in groups]
    seen = {one: np.zeros(one.num_rows, int) for one in requests}
    for piece, result in compute(_pieces(*requests)):
        one = piece.request
        seen[one][piece.rows] += 1
        series = one.inputs["series"][piece.rows]
        if isinstance(result, Exception):
            assert series[:, 0, 0].tolist() == [POISON]
        else:
            assert POISON not in series[:, 0, 0]
            np.testing.assert_array_equal(result["next_h"], one.inputs["h"][piece.rows] + 1)
            np.testing.assert_array_equal(result["logits"][..., 2], np.cumsum(series[..., 1], axis=1))
    assert all((times == 1).all() for times in seen.values())


def test_one_bad_row_of_32_costs_few_runs() -> None:
    session = FakeSession()
    one = request(session, [1] * 20 + [POISON] + [1] * 11)
    compute(one.batcher.pieces(one))
    assert len(session.batches) <= 2 * 5 + 1


def test_pieces_with_numbers_that_are_not_finite_are_taken_out_before_the_model_runs() -> None:
    session = FakeSession()
    requests = [request(session, [first, first + 1]) for first in (1, 3, 5)]
    requests[1].inputs["h"][1, 0, 2] = np.nan
    outcomes = {piece.request: result for piece, result in compute(_pieces(*requests))}
    bad = outcomes.pop(requests[1])
    assert isinstance(bad, NotFiniteError)
    assert bad.rows == [1]
    for one, result in outcomes.items():
        np.testing.assert_array_equal(result["next_h"], one.inputs["h"] + 1)  # type: ignore[index]
    assert set(session.rows) == {1, 2, 5, 6}


def test_each_request_gets_the_outputs_that_it_asked_for() -> None:
    session = FakeSession()
    requests = [request(session, [1], ("next_c",)), request(session, [2], ("logits", "next_h")), request(session, [3])]
    answers = [result for _, result in compute(_pieces(*requests))]
    assert [list(answer) for answer in answers] == [  # type: ignore[call-overload]
        ["next_c"],
        ["logits", "next_h"],
        ["logits", "probabilities", "next_h", "next_c"],
    ]


def test_a_request_alone_is_not_copied() -> None:
    session = FakeSession()
    one = request(session, [1, 2])
    seen = []
    session.run = lambda inputs, outputs=None: seen.append(inputs) or {}  # type: ignore[method-assign]
    compute(one.batcher.pieces(one))
    assert seen[0] is one.inputs


def test_errors_of_any_kind_are_the_row_s(caplog: pytest.LogCaptureFixture) -> None:
    session = FakeSession()
    one = request(session, [POISON])
    ((_, result),) = compute(one.batcher.pieces(one))
    assert isinstance(result, RuntimeError)
    assert "poisoned" in caplog.text
