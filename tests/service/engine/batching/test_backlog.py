"""Every request that the predictions admit is answered in time, whatever is admitted later."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.batching.backlog import Backlog


def test_an_idle_device_is_limited_by_the_request_alone() -> None:
    backlog = Backlog(1)
    assert backlog.predict(10.0, 11.0, work_s=0.5, batch_s=0.5)[1] == 0
    assert backlog.predict(10.0, 10.8, work_s=0.5, batch_s=0.5)[1] == pytest.approx(0.2)


def test_predictions_include_queued_and_running_work() -> None:
    backlog = Backlog(2)
    backlog.add(20.0, 3.0)
    backlog.started("job", 11.0)
    prediction = backlog.predict(10.0, 20.0, work_s=1.0, batch_s=0.25)
    assert prediction[0] == pytest.approx((1.0 + 3.0 + 1.0) / 2 + 0.25)
    assert prediction[1] == 0
    backlog.finished("job")
    backlog.remove(20.0, 3.0)
    assert backlog.total_s == 0
    assert backlog.predict(10.0, 20.0, work_s=1.0, batch_s=0.25)[0] == pytest.approx(0.75)


def test_removed_work_delays_nobody() -> None:
    backlog = Backlog(1)
    for deadline, work_s in ((11.0, 0.6), (11.0, 0.4), (20.0, 3.0)):
        backlog.add(deadline, work_s)
    assert backlog.predict(10.0, 11.0, work_s=0.5, batch_s=0.0)[1] == pytest.approx(0.5)
    backlog.remove(11.0, 0.6)
    assert backlog.predict(10.0, 11.0, work_s=0.7, batch_s=0.0)[1] == pytest.approx(0.1)
    backlog.remove(11.0, 0.4)
    assert backlog.predict(10.0, 11.0, work_s=0.9, batch_s=0.0)[1] == 0
    assert backlog.total_s == pytest.approx(3.0)


def test_an_empty_backlog_holds_no_rounding_error() -> None:
    backlog = Backlog(1)
    for _ in range(3):
        backlog.add(20.0, 0.1)
    for _ in range(3):
        backlog.remove(20.0, 0.1)
    assert backlog.total_s == 0.0


def test_an_urgent_request_passes_patient_ones() -> None:
    backlog = Backlog(1)
    backlog.add(30.0, 5.0)
    assert backlog.predict(10.0, 11.0, work_s=0.5, batch_s=0.1)[1] == 0


def test_an_urgent_request_must_not_make_others_late() -> None:
    backlog = Backlog(1)
    backlog.add(15.0, 4.8)
    assert backlog.predict(10.0, 11.0, work_s=0.5, batch_s=0.0)[1] == pytest.approx(0.3, abs=0.02)


def test_past_errors_correct_predictions() -> None:
    backlog = Backlog(1)
    for _ in range(50):
        backlog.calibrate(1.0, 3.0)
    backlog.add(15.0, 1.0)
    assert backlog.error_ratio == pytest.approx(3.0)
    assert backlog.predict(10.0, 20.0, work_s=1.0, batch_s=0.5)[1] == 0
    assert backlog.predict(10.0, 16.0, work_s=1.0, batch_s=0.5)[1] == pytest.approx(0.5)
    for _ in range(256):
        backlog.calibrate(1.0, 1.0)
    assert backlog.error_ratio == pytest.approx(1.0)


def test_the_shortest_waits_do_not_calibrate() -> None:
    backlog = Backlog(1)
    backlog.calibrate(1e-5, 1.0)
    assert backlog.error_ratio == 1.0


arrivals = st.lists(
    st.tuples(st.floats(0, 0.5), st.floats(0.05, 3.0), st.floats(0.01, 0.5)), min_size=1, max_size=40
)  # pause, timeout, work


@given(arrivals)
def test_all_admitted_requests_are_answered_in_time(arrivals: list[tuple[float, float, float]]) -> None:
    """One device, earliest deadline first, no preemption."""
    backlog = Backlog(1)
    longest = max(work for *_, work in arrivals)
    queue: list[tuple[float, float]] = []
    now, busy_until, late = 0.0, 0.0, 0

    def serve(end: float) -> None:
        nonlocal busy_until, late
        while queue and busy_until <= end:
            deadline, work = heapq.heappop(queue)
            backlog.remove(deadline, work)
            backlog.finished("job")
            busy_until += work
            backlog.started("job", busy_until)
            late += busy_until > deadline + 1e-9

    for pause, timeout, work in arrivals:
        now += pause
        serve(now)
        busy_until = max(busy_until, now)
        deadline = now + timeout
        if backlog.predict(now, deadline, work, longest)[1] == 0:
            heapq.heappush(queue, (deadline, work))
            backlog.add(deadline, work)
            serve(now)
    serve(1e9)
    assert late == 0
    assert backlog.total_s == pytest.approx(0, abs=1e-6)
