"""Who is let in is answered in time, whoever comes later."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.admission import Admission


def test_an_idle_engine_takes_what_it_can_do() -> None:
    admission = Admission(1)
    assert admission.forecast(10.0, 11.0, work_s=0.5, run_s=0.5)[1] == 0
    assert admission.forecast(10.0, 10.8, work_s=0.5, run_s=0.5)[1] == pytest.approx(0.2)


def test_what_waits_and_what_runs_is_waited_for() -> None:
    admission = Admission(2)
    admission.queued(20.0, 3.0)
    admission.begins("job", 11.0)
    forecast = admission.forecast(10.0, 20.0, work_s=1.0, run_s=0.25)
    assert forecast[0] == pytest.approx((1.0 + 3.0 + 1.0) / 2 + 0.25)
    assert forecast[1] == 0
    admission.ends("job")
    admission.left(20.0, 3.0)
    assert admission.total_s == 0
    assert admission.forecast(10.0, 20.0, work_s=1.0, run_s=0.25)[0] == pytest.approx(0.75)


def test_an_urgent_item_passes_those_that_can_wait() -> None:
    admission = Admission(1)
    admission.queued(30.0, 5.0)
    assert admission.forecast(10.0, 11.0, work_s=0.5, run_s=0.1)[1] == 0


def test_an_urgent_item_must_not_make_others_late() -> None:
    admission = Admission(1)
    admission.queued(15.0, 4.8)
    assert admission.forecast(10.0, 11.0, work_s=0.5, run_s=0.0)[1] == pytest.approx(0.3, abs=0.02)


def test_forecasts_stretch_as_far_as_they_were_off() -> None:
    admission = Admission(1)
    for _ in range(50):
        admission.learn(1.0, 3.0)
    admission.queued(15.0, 1.0)
    assert admission.stretch == pytest.approx(3.0)
    assert admission.forecast(10.0, 20.0, work_s=1.0, run_s=0.5)[1] == 0
    assert admission.forecast(10.0, 16.0, work_s=1.0, run_s=0.5)[1] == pytest.approx(0.5)
    for _ in range(256):
        admission.learn(1.0, 1.0)
    assert admission.stretch == pytest.approx(1.0)


def test_the_shortest_waits_teach_nothing() -> None:
    admission = Admission(1)
    admission.learn(1e-5, 1.0)
    assert admission.stretch == 1.0


arrivals = st.lists(
    st.tuples(st.floats(0, 0.5), st.floats(0.05, 3.0), st.floats(0.01, 0.5)), min_size=1, max_size=40
)  # pause, timeout, work


@given(arrivals)
def test_all_who_are_let_in_are_answered_in_time(arrivals: list[tuple[float, float, float]]) -> None:
    """One server, the earliest deadline first; an item that has begun is not interrupted."""
    admission = Admission(1)
    longest = max(work for *_, work in arrivals)
    queue: list[tuple[float, float]] = []
    now, busy_until, late = 0.0, 0.0, 0

    def serve(until: float) -> None:
        nonlocal busy_until, late
        while queue and busy_until <= until:
            deadline, work = heapq.heappop(queue)
            admission.left(deadline, work)
            admission.ends("job")
            busy_until += work
            admission.begins("job", busy_until)
            late += busy_until > deadline + 1e-9

    for pause, timeout, work in arrivals:
        now += pause
        serve(now)
        busy_until = max(busy_until, now)
        deadline = now + timeout
        if admission.forecast(now, deadline, work, longest)[1] == 0:
            heapq.heappush(queue, (deadline, work))
            admission.queued(deadline, work)
            serve(now)
    serve(1e9)
    assert late == 0
    assert admission.total_s == pytest.approx(0, abs=1e-6)
