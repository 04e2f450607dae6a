"""Refusals: their reasons, their retry times, and the places kept for clients that return on time."""

import threading

import pytest

from service.engine.admission.controller import DEADLINE_BUDGET, MAX_AGE_S, SHED_INTERVAL, AdmissionController
from service.engine.admission.retry_schedule import GRACE_S, SLOT_S
from service.engine.batching.backlog import Backlog
from service.engine.context import UNRESERVED, Permit
from service.engine.limits import Limits
from service.errors import EkibenError
from tests.service.engine.fakes import FakeSession, rows
from tests.service.engine.requests import make_context, make_queue, make_request

START = 1000.0
SESSION = FakeSession()
TIMEOUT_S = 3.05 / DEADLINE_BUDGET  # two seconds of queue, and one for the batch


class Device:
    """A queue behind its admission controller; an item of 8 steps takes 0.1 s, in batches of 10."""

    def __init__(self, *, max_queue_items: int = 1000) -> None:
        self.now = START
        self.backlog = Backlog(1)
        limits = Limits(max_batch_items=10, max_queue_items=max_queue_items)
        self.queue = make_queue(SESSION, backlog=self.backlog, max_batch_items=10)
        self.controller = AdmissionController(1, limits, self.backlog, threading.RLock(), clock=lambda: self.now)
        self.queue.cost_model.observe(10, 8, 1.0)
        self.queue.measured_at = START
        self._num_clients = 0

    @property
    def refused(self) -> dict[str, int]:
        return dict(self.queue.counters.refused)

    def arrive(self, client: str = "", *, timeout_s: float = TIMEOUT_S, route: str = "/path") -> Permit | EkibenError:
        """A request before its body is read."""
        context = make_context(self.now + timeout_s, received_at=self.now, client=client or "somebody", route=route)
        try:
            return self.controller.try_admit(context)
        except EkibenError as refusal:
            return refusal

    def send(self, client: str | None = "", *, timeout_s: float = TIMEOUT_S) -> EkibenError | None:
        """A whole request, from a client of its own where none is given (None: a client that is not known)."""
        self._num_clients += 1
        name = f"client {self._num_clients}" if client == "" else client or ""
        context = make_context(self.now + timeout_s, received_at=self.now, client=name)
        request = make_request(self.queue, rows(8), session=SESSION, arrived_at=self.now, context=context)
        try:
            context.permit = self.controller.try_admit(context)
            context.permit.release()
            self.controller.try_admit(context, self.queue.estimate(request))
        except EkibenError as refusal:
            return refusal
        for part in self.queue.slices(request):
            self.queue.push(part)
        return None

    def overload(self) -> EkibenError:
        """Twenty items are queued and the client `refused` is refused."""
        for _ in range(20):
            assert self.send() is None
        refusal = self.send("refused")
        assert refusal is not None
        return refusal


def retry_after_s(refusal: Permit | EkibenError | None) -> float | None:
    assert isinstance(refusal, EkibenError)
    return refusal.retry_after_s


def test_requests_are_admitted_while_they_will_be_answered_in_time() -> None:
    device = Device()
    answers = [device.send() for _ in range(40)]
    assert [answer is None for answer in answers] == [True] * 20 + [False] * 20
    assert device.refused == {"overloaded": 20}
    refusal = answers[-1]
    assert refusal is not None
    assert (refusal.slug, refusal.retry_after_s is not None) == ("overloaded", True)
    assert "the deadline would be missed; 20 items are waiting" in refusal.detail


def test_a_full_queue_refuses_whatever_the_deadline() -> None:
    device = Device(max_queue_items=5)
    assert [device.send(timeout_s=100.0) is None for _ in range(7)] == [True] * 5 + [False] * 2
    assert device.refused == {"queue-full": 2}


def test_refused_clients_are_spread_over_the_next_seconds() -> None:
    device = Device(max_queue_items=1)
    device.send(timeout_s=100.0)
    retry_times = [retry_after_s(device.send(timeout_s=100.0)) for _ in range(5)]
    assert retry_times == [1.0, 2.0, 3.0, 4.0, 5.0]  # no slot has room for two such items


def test_a_client_that_returns_on_time_finds_the_place_that_others_do_not_get() -> None:
    device = Device(max_queue_items=5)
    for _ in range(5):
        device.send(timeout_s=100.0)
    assert device.send("refused", timeout_s=100.0) is not None
    assert device.queue.next_batch(START) is not None
    device.now = START + 1.01
    assert [device.send(timeout_s=100.0) is None for _ in range(5)] == [True, True, True, True, False]
    assert device.send("refused", timeout_s=100.0) is None


def test_a_client_that_returns_on_time_may_use_more_of_its_deadline() -> None:
    device = Device()
    assert device.overload().retry_after_s == 1.0
    assert retry_after_s(device.send()) == 2.0
    device.now = device.queue.measured_at = START + 1.01
    assert device.send("somebody else") is not None
    assert device.send("refused") is None
    assert device.queue.num_rows == 21


def test_returning_on_time_counts_once() -> None:
    device = Device()
    device.overload()
    device.now = device.queue.measured_at = START + 1.01
    assert device.send("refused") is None
    assert device.send("refused") is not None


def test_a_client_that_returns_early_is_refused_before_its_body_is_read() -> None:
    device = Device()
    device.overload()
    device.now = START + SHED_INTERVAL * TIMEOUT_S / 2
    assert retry_after_s(device.arrive("refused")) == 1.0
    assert device.refused == {"overloaded": 1, "unread": 1}
    assert device.arrive("new") is UNRESERVED, "a new client's body is read"
    assert device.arrive("refused", route="/other") is UNRESERVED, "it was refused on another route"
    assert device.arrive("refused", timeout_s=2 * TIMEOUT_S) is UNRESERVED, "it has more time now"
    device.now = START + SHED_INTERVAL * TIMEOUT_S + 0.2
    assert retry_after_s(device.arrive("refused")) == 1.0, "the queue is still as long"
    device.queue.clear()
    device.now += SHED_INTERVAL * TIMEOUT_S + 1e-6
    assert device.arrive("refused") is UNRESERVED, "it would be answered in time"


def test_a_request_that_will_be_answered_in_time_turns_nobody_away() -> None:
    device = Device(max_queue_items=1)
    assert device.send(timeout_s=100.0) is None
    assert device.send("refused", timeout_s=100.0) is not None
    device.queue.clear()
    assert device.send(timeout_s=100.0) is None
    assert device.arrive("refused", timeout_s=100.0) is UNRESERVED


def test_an_early_client_that_is_refused_again_keeps_its_time() -> None:
    device = Device()
    device.overload()
    device.now = START + 0.5
    assert retry_after_s(device.send("refused")) == 1.0
    device.now = START + 1.01
    assert isinstance(device.arrive("refused"), Permit)


def test_work_is_reserved_for_a_returning_client_while_it_is_read() -> None:
    device = Device()
    device.overload()
    queued_s = device.backlog.total_s
    device.now = START + 1.01
    permit = device.arrive("refused")
    assert isinstance(permit, Permit)
    assert permit.reserved_s == pytest.approx(0.1)
    assert device.backlog.total_s == pytest.approx(queued_s + 0.1)
    for _ in range(2):
        permit.release()
    assert device.backlog.total_s == pytest.approx(queued_s)


def test_unknown_clients_are_told_the_wait_alone() -> None:
    device = Device()
    for _ in range(20):
        device.send()
    assert [retry_after_s(device.send(None)) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert not device.controller.expects_retries


def test_retries_are_expected_until_the_grace_period_ends() -> None:
    device = Device()
    assert not device.controller.expects_retries
    device.overload()
    assert device.controller.expects_retries
    device.arrive("new")
    assert device.controller.expects_retries
    device.now = START + 1.0 + GRACE_S + 2 * SLOT_S
    device.arrive("new")
    assert not device.controller.expects_retries


def test_a_stale_measurement_admits_a_request_to_measure_again() -> None:
    device = Device()
    assert device.send(timeout_s=0.5) is not None
    device.now = START + MAX_AGE_S + 0.01
    assert device.send(timeout_s=0.5) is None


def test_without_measurements_nobody_is_refused_for_time() -> None:
    device = Device()
    device.queue.cost_model = type(device.queue.cost_model)()
    assert device.send(timeout_s=0.5) is None


def test_a_large_refused_request_does_not_keep_small_ones_out() -> None:
    device = Device()
    context = make_context(START + 3, received_at=START, client="large")
    large = make_request(device.queue, rows(*[8] * 40), session=SESSION, arrived_at=START, context=context)
    with pytest.raises(EkibenError):
        device.controller.try_admit(context, device.queue.estimate(large))
    assert device.send(timeout_s=6.0) is None
    assert device.backlog.total_s == pytest.approx(0.1)
