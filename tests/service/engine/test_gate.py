"""Refusals: why, with how long to stay away, and not for those who come back as told."""

import pytest

from service.engine.admission import Admission
from service.engine.appointments import Visitor
from service.engine.batcher import Batcher
from service.engine.counters import Counters
from service.engine.gate import CLOSED, LINE, PROBE_S, USED, Gate
from service.engine.layout import Layout
from service.engine.limits import Limits
from service.engine.request import Request
from service.errors import EkibenError
from tests.service.engine.fakes import LOOP, FakeSession, rows

NOW = 1000.0
SESSION = FakeSession()


class Engine:
    """A queue behind a gate; an item of 8 steps takes a tenth of a second, in batches of 10."""

    def __init__(self, max_queue_items: int = 1000) -> None:
        limits = Limits(max_batch_items=10, max_queue_items=max_queue_items)
        admission = Admission(1)
        self.queue = Batcher(Layout(SESSION.manifest), limits, Counters(model="m", version="1"), admission)
        self.gate = Gate(1, limits, admission)
        self.queue.latency.observe(10, 8, 1.0)
        self.queue.observed_at = NOW
        self.admission = admission
        self.connections = self.unread = self.unparsed = 0

    def ask(
        self, first: float = 1.0, *, now: float = NOW, timeout_s: float = 100.0, address: str = ""
    ) -> EkibenError | None:
        """With a body of its own, over a connection of its own where no address is given."""
        inputs = rows(8, first=first)
        self.connections += 1
        visitor = Visitor("/path", address or f"connection {self.connections}", now + timeout_s)
        if unread := self.gate.knock(visitor, now):
            self.unread += 1
            return unread
        visitor.body = b"%d" % first
        if unparsed := self.gate.knock(visitor, now):
            self.unparsed += 1
            return unparsed
        self.gate.forget(visitor)
        request = Request(
            SESSION,  # type: ignore[arg-type]
            self.queue,
            inputs,
            None,
            num_rows=1,
            items="",
            arrived=now,
            deadline=now + timeout_s,
            loop=LOOP,
            visitor=visitor,
        )
        refusal = self.gate.refusal(request, self.queue.pieces(request), now)
        if refusal is None:
            for piece in request.pieces:
                self.queue.push(piece)
        return refusal


def test_items_are_let_in_while_they_will_be_in_time() -> None:
    engine = Engine()
    answers = [engine.ask(i, timeout_s=3.05 / USED) for i in range(40)]
    assert [answer is None for answer in answers] == [True] * 20 + [False] * 20  # two seconds, and one for the batch
    assert engine.queue.counters.refused == {"overloaded": 20}
    assert (engine.unread, engine.unparsed) == (0, 19)  # all but the one that taught what such a request takes
    refusal = answers[-1]
    assert refusal is not None
    assert (refusal.slug, refusal.retry_after_s is not None) == ("overloaded", True)
    assert "too late; 20 items are waiting" in refusal.detail


def test_a_full_queue_is_full_however_much_time_there_is() -> None:
    engine = Engine(max_queue_items=5)
    assert [engine.ask(i) is None for i in range(7)] == [True] * 5 + [False] * 2
    assert engine.queue.counters.refused == {"queue-full": 2}


def test_the_refused_are_spread_over_the_seconds_that_follow() -> None:
    engine = Engine(max_queue_items=1)
    engine.ask()
    told = [refusal.retry_after_s for i in range(5) if (refusal := engine.ask(i)) is not None]
    assert told == [1.0, 2.0, 3.0, 4.0, 5.0]  # no quarter of a second has room for two such items


def test_who_comes_back_as_told_finds_the_place_that_others_do_not_get() -> None:
    engine = Engine(max_queue_items=5)
    for i in range(5):
        engine.ask(i)
    assert engine.ask(100) is not None
    batch = engine.queue.take(NOW)
    assert batch is not None
    later = NOW + 1.01
    assert [engine.ask(200 + i, now=later) is None for i in range(5)] == [True, True, True, True, False]
    assert engine.ask(100, now=later) is None


def test_who_comes_back_as_told_may_use_time_that_others_may_not() -> None:
    engine = Engine()
    timeout_s = 3.05 / USED
    answers = [engine.ask(i, timeout_s=timeout_s) for i in range(22)]
    assert [answer.retry_after_s for answer in answers if answer is not None] == [1.0, 2.0]
    later = NOW + 1.01
    engine.queue.observed_at = later
    assert engine.ask(300, now=later, timeout_s=timeout_s) is not None
    assert engine.ask(20, now=later, timeout_s=timeout_s) is None
    for i in range(200):
        engine.ask(500 + i, now=later, timeout_s=timeout_s)
    assert engine.queue.num_rows == 21


def test_a_visitor_is_read_again_when_what_a_request_takes_was_learnt_long_ago() -> None:
    engine = Engine()
    for i in range(22):
        engine.ask(i, timeout_s=3.05 / USED)
    assert engine.unparsed == 1
    later = NOW + PROBE_S + 0.01
    engine.queue.observed_at = later
    assert engine.ask(400, now=later, timeout_s=3.05 / USED) is not None
    assert engine.unparsed == 1


def test_who_was_refused_is_refused_unread_until_it_may_come() -> None:
    engine = Engine()
    timeout_s = 3.05 / USED
    for i in range(22):
        engine.ask(i, timeout_s=timeout_s, address=f"{i}")
    assert engine.unread == 0
    early = NOW + 0.5
    engine.queue.observed_at = early
    again = engine.ask(300, now=early, timeout_s=timeout_s, address="20")  # something else
    assert again is not None
    assert (engine.unread, again.retry_after_s) == (1, 1.0)
    assert engine.ask(300, now=NOW + 1.01, timeout_s=timeout_s, address="20") is None
    assert engine.queue.counters.refused == {"overloaded": 2, "unread": 1}


def test_after_one_was_refused_a_quick_look_tells_the_others_for_a_moment() -> None:
    engine = Engine()
    timeout_s = 3.05 / USED
    for i in range(22):
        engine.ask(i, timeout_s=timeout_s, address=f"{i}")
    now = NOW + 0.01

    def look(address: str = "20", path: str = "/path", *, timeout_s: float = timeout_s, now: float = now) -> float:
        return engine.gate.stay_away_s(Visitor(path, address, now + timeout_s), now)

    assert look() == 1.0
    assert engine.queue.counters.refused["unread"] == 1
    assert look("stranger") == look(path="/other") == look(timeout_s=2 * timeout_s) == 0.0
    assert look(now=NOW + 2 * CLOSED * timeout_s + 0.1) == 0.0
    assert set(engine.gate.judged) == {"/path"}


def crowded() -> tuple[Engine, float]:
    """One has been refused and ten are being computed; all have as long to wait as is returned."""
    engine = Engine()
    timeout_s = 3.05 / USED
    for i in range(21):
        engine.ask(i, timeout_s=timeout_s)
    engine.queue.take(NOW)
    return engine, timeout_s


def test_who_would_be_read_too_late_is_refused_unread_even_if_it_is_new() -> None:
    engine, timeout_s = crowded()

    def knock(lag_s: float) -> EkibenError | None:
        engine.connections += 1
        visitor = Visitor("/path", f"new {engine.connections}", NOW + timeout_s)
        refusal = engine.gate.knock(visitor, NOW, lag_s)
        engine.gate.forget(visitor)
        return refusal

    assert knock(0.0) is None
    assert knock(0.4 * USED * timeout_s) is None  # it is to be read, since it is new
    assert knock(0.6 * USED * timeout_s) is not None
    assert engine.queue.counters.refused["unread"] == 1


def test_nobody_joins_a_line_that_takes_too_much_of_its_time() -> None:
    engine, timeout_s = crowded()
    engine.queue.clear()

    def knock(address: str, line: float, now: float = NOW, *, body: bytes | None = None) -> EkibenError | None:
        visitor = Visitor("/path", address, now + timeout_s, body)
        refusal = engine.gate.knock(visitor, now, 0.0, line * timeout_s)
        engine.gate.forget(visitor)
        return refusal

    assert knock("a", 0.9 * LINE) is None
    refusal = knock("b", 1.1 * LINE)
    assert refusal is not None
    assert refusal.retry_after_s is not None
    assert engine.queue.counters.refused["unread"] == 1
    then = NOW + refusal.retry_after_s
    engine.gate.judged["/path"].until = then + PROBE_S
    assert knock("c", 1.1 * LINE, then) is not None
    assert knock("b", 1.1 * LINE, then) is None, "who comes as told passes the others"


def test_a_long_line_alone_is_a_reason_to_judge_once_it_is_known_what_is_asked() -> None:
    engine = Engine()
    visitor = Visitor("/path", "a", NOW + 1.0)
    for line_s, crowds in ((0.9 * LINE, False), (1.1 * LINE, True), (0.0, True)):
        assert engine.gate.knock(visitor, NOW, 0.0, line_s) is None
        assert visitor.crowded == crowds
    late = Visitor("/path", "a", NOW - 1.0)
    assert engine.gate.knock(late, NOW) is None
    assert (late.crowded, engine.gate.judged) == (False, {})
    engine.gate.judge(visitor, engine.queue, num_rows=2, num_steps=8, now=NOW)
    assert not visitor.crowded
    demand = engine.gate.judged["/path"]
    assert (demand.work_s, demand.run_s) == pytest.approx((0.2, 1.0))
    assert engine.gate.knock(Visitor("/path", "b", NOW + 10.0), NOW, 0.0, 1.0) is not None
    assert engine.gate.knock(Visitor("/path", "c", NOW + 10.0), NOW) is None
    engine.gate.judge(visitor, engine.queue, num_rows=3, num_steps=8, now=NOW)
    assert engine.gate.judged["/path"] is demand


def test_what_is_still_to_be_read_takes_part_in_the_reckoning() -> None:
    engine, timeout_s = crowded()
    visitors = [Visitor("/path", f"{i}", NOW + timeout_s) for i in range(11)]
    assert [engine.gate.knock(visitor, NOW) for visitor in visitors] == [None] * 11
    assert [visitor.due_s > 0 for visitor in visitors] == [True] * 10 + [False]  # who is new is read, but not let in
    kept_s = engine.admission.total_s
    for visitor in visitors * 2:
        engine.gate.forget(visitor)
    assert kept_s - engine.admission.total_s == pytest.approx(1.0)


def test_after_a_while_without_a_measurement_one_may_try() -> None:
    engine = Engine()
    assert engine.ask(timeout_s=0.5) is not None
    assert engine.ask(timeout_s=0.5, now=NOW + PROBE_S + 0.01) is None


@pytest.mark.parametrize("work_known", [True, False])
def test_nobody_is_refused_for_a_latency_that_nobody_knows(work_known: bool) -> None:
    engine = Engine()
    if not work_known:
        engine.queue.latency = type(engine.queue.latency)()
    assert (engine.ask(timeout_s=0.5) is None) != work_known


def test_what_one_request_took_is_not_held_against_others_for_long() -> None:
    """One that could never be in time is refused; those who come after it, to an idle engine, are not."""
    engine = Engine()
    visitor = Visitor("/path", "large", NOW + 3)
    large = Request(
        SESSION,  # type: ignore[arg-type]
        engine.queue,
        rows(*[8] * 40),
        None,
        num_rows=40,
        items="",
        arrived=NOW,
        deadline=NOW + 3,
        loop=LOOP,
        visitor=visitor,
    )
    assert engine.gate.refusal(large, engine.queue.pieces(large), NOW) is not None
    assert engine.gate.judged
    for half_seconds in range(1, 40):
        now = NOW + half_seconds / 2
        small = Visitor("/path", f"{half_seconds}", now + 6, body=b"")
        refusal = engine.gate.knock(small, now)
        engine.gate.forget(small)
        assert refusal is None or now < NOW + 3 * PROBE_S
    assert not engine.gate.judged
    assert engine.admission.total_s == 0
