"""Every row of a batch gets a value or an error, whatever the other rows do."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.batching.batch import compute
from service.engine.batching.collate import NotFiniteError
from service.engine.batching.outputs import NotFiniteOutputError
from service.engine.batching.request import Request, RequestSlice
from tests.service.engine.fakes import NOT_FINITE, POISON, FakeSession, rows
from tests.service.engine.requests import make_queue, make_request


def request(session: FakeSession, firsts: list[int], outputs: tuple[str, ...] | None = None) -> Request:
    inputs = rows(*[5] * len(firsts))
    inputs["series"][:, 0, 0] = firsts
    queue = make_queue(session)
    request = make_request(queue, inputs, session=session, outputs=outputs, items="/rows")
    queue.slices(request)
    return request


def slices_of(*requests: Request) -> list[RequestSlice]:
    return [part for one in requests for part in one.slices]


@given(st.lists(st.lists(st.sampled_from([1, 2, 3, POISON]), min_size=1, max_size=5), min_size=1, max_size=6))
@settings(deadline=None)
def test_only_the_rows_that_fail_have_errors(groups: list[list[int]]) -> None:
    session = FakeSession()
    requests = [request(session, group, ("logits", "next_h")) for group in groups]
    seen = {one: np.zeros(one.num_rows, int) for one in requests}
    for part, result in compute(slices_of(*requests)):
        one = part.request
        seen[one][part.rows] += 1
        series = one.inputs["series"][part.rows]
        if isinstance(result, Exception):
            assert series[:, 0, 0].tolist() == [POISON]
        else:
            assert POISON not in series[:, 0, 0]
            np.testing.assert_array_equal(result["next_h"], one.inputs["h"][part.rows] + 1)
            np.testing.assert_array_equal(result["logits"][..., 2], np.cumsum(series[..., 1], axis=1))
    assert all((times == 1).all() for times in seen.values())


def test_one_bad_row_of_32_costs_few_runs() -> None:
    session = FakeSession()
    one = request(session, [1] * 20 + [POISON] + [1] * 11)
    compute(one.slices)
    assert len(session.batches) <= 2 * 5 + 1


def test_pieces_with_numbers_that_are_not_finite_are_taken_out_before_the_model_runs() -> None:
    session = FakeSession()
    requests = [request(session, [first, first + 1]) for first in (1, 3, 5)]
    requests[1].inputs["h"][1, 0, 2] = np.nan
    results = {part.request: result for part, result in compute(slices_of(*requests))}
    bad = results.pop(requests[1])
    assert isinstance(bad, NotFiniteError)
    assert bad.rows == [1]
    for one, result in results.items():
        np.testing.assert_array_equal(result["next_h"], one.inputs["h"] + 1)  # type: ignore[index]
    assert set(session.rows) == {1, 2, 5, 6}


def test_rows_whose_outputs_are_not_finite_have_an_error_and_the_others_their_values() -> None:
    session = FakeSession()
    requests = [request(session, firsts) for firsts in ([1, NOT_FINITE, 2], [3], [NOT_FINITE])]
    results = {part.request: result for part, result in compute(slices_of(*requests))}
    assert len(session.batches) == 1
    for one, bad in ((requests[0], {1: "next_c"}), (requests[2], {0: "next_c"})):
        error = results[one]
        assert isinstance(error, NotFiniteOutputError)
        assert error.outputs == bad
    np.testing.assert_array_equal(results[requests[1]]["next_c"], requests[1].inputs["c"] + 2)  # type: ignore[index]


def test_a_request_alone_is_checked_like_a_batch() -> None:
    session = FakeSession()
    ((_, error),) = compute(request(session, [1, NOT_FINITE]).slices)
    assert isinstance(error, NotFiniteOutputError)
    assert error.outputs == {1: "next_c"}


def test_outputs_that_nobody_asked_for_are_not_checked() -> None:
    session = FakeSession()
    ((_, answer),) = compute(request(session, [NOT_FINITE], ("next_h",)).slices)
    assert not isinstance(answer, Exception)


def test_each_request_gets_the_outputs_that_it_asked_for() -> None:
    session = FakeSession()
    requests = [request(session, [1], ("next_c",)), request(session, [2], ("logits", "next_h")), request(session, [3])]
    answers = [result for _, result in compute(slices_of(*requests))]
    assert [list(answer) for answer in answers] == [  # type: ignore[call-overload]
        ["next_c"],
        ["logits", "next_h"],
        ["logits", "probabilities", "next_h", "next_c"],
    ]


def test_a_batch_computes_the_outputs_that_any_of_its_requests_asked_for() -> None:
    session = FakeSession()
    computed = []
    run = session.run

    def run_and_record(inputs: Any, outputs: Any = None) -> Any:
        computed.append(outputs)
        return run(inputs, outputs)

    session.run = run_and_record  # type: ignore[method-assign]
    asked: list[tuple[str, ...]] = [("next_c",), ("logits", "next_c"), ("next_h",)]
    requests = [request(session, [i], outputs) for i, outputs in enumerate(asked, start=1)]
    answers = [result for _, result in compute(slices_of(*requests))]
    assert [tuple(answer) for answer in answers] == asked  # type: ignore[arg-type]
    assert computed == [("next_c", "logits", "next_h")]


def test_a_request_alone_is_not_copied() -> None:
    session = FakeSession()
    one = request(session, [1, 2])
    seen = []
    session.run = lambda inputs, outputs=None: seen.append(inputs) or {}  # type: ignore[method-assign]
    compute(one.slices)
    assert seen[0] is one.inputs


def test_an_error_of_any_kind_belongs_to_its_row(caplog: pytest.LogCaptureFixture) -> None:
    session = FakeSession()
    one = request(session, [POISON])
    ((_, result),) = compute(one.slices)
    assert isinstance(result, RuntimeError)
    assert "poisoned" in caplog.text
