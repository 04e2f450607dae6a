"""Attempts, pauses and the end of a call, without a network and with a clock that is moved by hand."""

import httpx
import pytest

from ekiben.client import attempts as module
from ekiben.client.attempts import Deadline, HttpAnswer, Outcome, Pause, Send, ServiceCall, attempts, retry_after_s
from ekiben.client.errors import ConnectionFailedError, DeadlineError, InvalidRequestError, UnavailableError

CALL: ServiceCall[None] = ServiceCall(path="/x", parse=lambda _: None)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def reply(status: int, **headers: str) -> HttpAnswer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status=status, headers=httpx.Headers(names), body=b'{"detail": "no"}')


def run(
    clock: Clock, outcomes: list[Outcome], *, max_retries: int = 10, each_s: float = 0.5
) -> tuple[list[float], list[int], int]:
    """Return the pauses, the timeouts sent and the status; each attempt takes `each_s`."""
    steps = attempts(CALL, Deadline(10), max_retries)
    pauses: list[float] = []
    timeouts: list[int] = []
    outcome: Outcome = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as ended:
            return pauses, timeouts, ended.value.status
        if isinstance(step, Pause):
            pauses.append(step.seconds)
            clock.now += step.seconds
            outcome = None
        else:
            assert isinstance(step, Send)
            timeouts.append(int(step.headers["x-request-timeout-ms"]))
            clock.now += each_s
            outcome = outcomes.pop(0)


def test_retries_come_when_the_service_asks_for_them(clock: Clock) -> None:
    refused = [reply(503, retry_after="2", retry_after_ms="1250"), reply(429, retry_after="3")]
    pauses, timeouts, status = run(clock, [*refused, reply(200)])
    assert (pauses, status) == ([1.25, 3.0], 200)
    assert timeouts == [10000, 8250, 4750]


def test_broken_connections_are_tried_again_with_growing_pauses(clock: Clock) -> None:
    pauses, _, status = run(clock, [*[httpx.ConnectError("refused")] * 6, reply(200)], each_s=0)
    assert status == 200
    assert all(0.025 * 2**i <= pause <= 0.05 * 2**i for i, pause in enumerate(pauses))


def test_a_call_ends_rather_than_wait_beyond_its_deadline(clock: Clock) -> None:
    with pytest.raises(UnavailableError) as caught:
        run(clock, [reply(503, retry_after="60")])
    assert caught.value.retry_after_s == 60
    assert clock.now == 100.5
    with pytest.raises(ConnectionFailedError):
        run(clock, [httpx.ReadError("broken")] * 90, max_retries=100)
    with pytest.raises(UnavailableError):
        run(clock, [reply(503, retry_after_ms="1")] * 90, max_retries=100, each_s=11)
    with pytest.raises(DeadlineError):
        run(clock, [httpx.ReadTimeout("")])


def test_number_of_retries_is_bounded(clock: Clock) -> None:
    outcomes: list[Outcome] = [reply(503, retry_after_ms="1") for _ in range(5)]
    with pytest.raises(UnavailableError):
        run(clock, outcomes, max_retries=2)
    assert len(outcomes) == 2


def test_other_errors_are_not_tried_again(clock: Clock) -> None:
    with pytest.raises(InvalidRequestError):
        run(clock, [reply(422, retry_after="0")])


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "30", "retry-after": "1"}, 0.03),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after-ms": "-1"}, None),
        ({}, None),
    ],
)
def test_time_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_deadline_is_what_httpx_waits(clock: Clock) -> None:
    deadline = Deadline(3)
    assert deadline.get("read", None) == 3
    clock.now += 2
    assert deadline.get("connect") == 1
    deadline.check()
    clock.now += 2
    assert 0 < deadline.get("read") < 0.01
    with pytest.raises(DeadlineError):
        deadline.check()
