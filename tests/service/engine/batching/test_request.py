"""A request gets an answer or one error, complete and with its rows in order."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from service.engine.batching.outputs import NotFiniteOutputError
from service.engine.batching.request import Request, RequestSlice, RequestStatus
from service.errors import EkibenError
from tests.service.engine.fakes import rows
from tests.service.engine.requests import make_queue, make_request


def answer_of(lengths: list[int], deliver: Callable[[Request, list[RequestSlice]], None]) -> dict[str, np.ndarray]:
    """The answer of a request of these lengths after `deliver`."""

    async def scenario() -> dict[str, np.ndarray]:
        queue = make_queue()
        request = make_request(queue, rows(*lengths), items="/rows", loop=asyncio.get_running_loop())
        deliver(request, list(queue.slices(request)))
        assert request.future.done()
        assert request.status is RequestStatus.DONE
        return await request.future

    return asyncio.run(scenario())


def numbers(part: RequestSlice, steps: int) -> dict[str, np.ndarray]:
    rows = np.arange(part.request.num_rows)[part.rows]
    return {"logits": np.tile(rows[:, None, None], (1, steps, 3)).astype(np.float32)}


def test_slices_are_joined_in_the_order_of_the_rows() -> None:
    def deliver(request: Request, slices: list[RequestSlice]) -> None:
        assert len(slices) == 4
        for part in reversed(slices):
            assert not request.future.done()
            request.deliver(part, numbers(part, part.longest))

    answer = answer_of([30, 5, 15, 6, 30], deliver)
    assert answer["logits"].shape == (5, 30, 3)
    np.testing.assert_array_equal(answer["logits"][:, 0, 0], [0, 1, 2, 3, 4])
    assert not answer["logits"][1, 5:].any()


def test_a_batch_longer_than_the_request_is_cut_back() -> None:
    answer = answer_of([5], lambda request, slices: request.deliver(slices[0], numbers(slices[0], 8)))
    assert answer["logits"].shape == (1, 5, 3)


def test_one_failed_row_fails_the_request_once_all_rows_are_known() -> None:
    def deliver(request: Request, slices: list[RequestSlice]) -> None:
        request.deliver(slices[0], RuntimeError("first"))
        assert not request.future.done()
        request.deliver(slices[1], numbers(slices[1], 5))

    with pytest.raises(EkibenError, match="failed on 1 of 2 items") as caught:
        answer_of([30, 5], deliver)
    assert [fault.pointer for fault in caught.value.faults] == ["/rows/1"]
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_row_that_lacks_memory_is_no_fault_of_the_model() -> None:
    def deliver(request: Request, slices: list[RequestSlice]) -> None:
        error = RuntimeError("m/1: the graph failed: [ONNXRuntimeError] : 1 : FAIL : Non-zero status code")
        error.__cause__ = Exception("Available memory of 512 is smaller than requested bytes of 1024")
        request.deliver(slices[0], error)
        request.deliver(slices[1], numbers(slices[1], 5))

    with pytest.raises(EkibenError, match=r"the service lacks memory now$") as caught:
        answer_of([30, 5], deliver)
    assert (caught.value.slug, caught.value.retry_after_s) == ("overloaded", 1.0)


def test_results_after_the_end_are_dropped() -> None:
    def deliver(request: Request, slices: list[RequestSlice]) -> None:
        request.fail(EkibenError("timeout", "late"))
        request.deliver(slices[0], numbers(slices[0], 5))
        request.fail(EkibenError("timeout", "later"))

    with pytest.raises(EkibenError, match=r"late$"):
        answer_of([5], deliver)


def test_a_slice_splits_into_slices_with_their_own_steps() -> None:
    def deliver(request: Request, slices: list[RequestSlice]) -> None:
        (part,) = slices
        part.work_s = 3.0
        head = part.split(1)
        assert (head.num_rows, head.longest, head.steps, head.work_s) == (1, 21, 21, pytest.approx(1.0))
        assert (part.num_rows, part.longest, part.steps, part.work_s) == (2, 22, 44, pytest.approx(2.0))
        request.deliver(part, numbers(part, 22))
        request.deliver(head, numbers(head, 21))

    answer = answer_of([21, 22, 22], deliver)
    np.testing.assert_array_equal(answer["logits"][:, 0, 0], [0, 1, 2])


def test_rows_that_are_not_finite_are_named_by_their_place_in_the_request() -> None:
    def deliver(request: Request, slices: list[RequestSlice]) -> None:
        short, long = slices
        assert (short.num_rows, long.num_rows) == (2, 1)
        request.deliver(short, NotFiniteOutputError({1: "next_h"}))
        assert not request.future.done()
        request.deliver(long, NotFiniteOutputError({0: "logits"}))

    with pytest.raises(EkibenError, match="2 of 3 items: 0, 2") as caught:
        answer_of([30, 5, 5], deliver)
    assert caught.value.slug == "not-finite"
    assert [(fault.pointer, fault.detail.split("'")[2]) for fault in caught.value.faults] == [
        ("/rows/0", "logits"),
        ("/rows/2", "next_h"),
    ]


def test_a_model_that_fails_on_another_row_is_reported_first() -> None:
    def deliver(request: Request, slices: list[RequestSlice]) -> None:
        request.deliver(slices[0], NotFiniteOutputError({0: "next_h"}))
        request.deliver(slices[1], RuntimeError("second"))

    with pytest.raises(EkibenError, match="failed on 1 of 2 items") as caught:
        answer_of([30, 5], deliver)
    assert caught.value.slug == "internal"
