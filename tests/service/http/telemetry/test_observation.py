"""Observers are told of a request twice, and their failures stay their own."""

from typing import Any

import pytest

from service.http.telemetry.exposition import Samples
from service.http.telemetry.observation import Observation, Outcome, begin_all, end_all
from tests.service.http.telemetry.observed import observation, outcome


class Recording:
    def __init__(self, calls: list[Any], *, fails: bool = False) -> None:
        self._calls, self._fails = calls, fails

    def begin(self, observation: Observation) -> None:
        self._record("begin", observation.route)

    def end(self, observation: Observation, outcome: Outcome) -> None:
        self._record("end", outcome.status)

    def samples(self) -> Samples:
        return {}

    def close(self) -> None: ...

    def _record(self, *call: Any) -> None:
        if self._fails:
            raise KeyError("broken")
        self._calls.append(call)


def test_a_failing_observer_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Any] = []
    observers = Recording([], fails=True), Recording(calls)
    request = observation().request
    observed = begin_all(observers, request, "/classify")
    end_all(observers, observed, outcome(503))
    assert calls == [("begin", "/classify"), ("end", 503)]
    assert caplog.text.count("Recording failed") == 2


def test_the_engine_records_times_of_an_observed_request_only() -> None:
    unread = observation()
    assert unread.request.context is not None
    assert (unread.request.context.timings, unread.body_at) == (None, 0.0)
    read = observation(b"{}")
    assert read.request.context is not None
    assert read.request.context.timings == []
    assert read.body_at >= read.request.received_at


def test_bytes_of_a_stream_add_up() -> None:
    observed = observation()
    observed.sent(b"ab")
    observed.sent(b"c")
    assert observed.num_sent == 3
