"""Generation slots are bounded, freed whatever happens, and a refusal names the wait for one."""

from types import SimpleNamespace

import pytest

from service.engine.admission.concurrency import ConcurrencyLimiter
from service.errors import EkibenError


def test_a_request_without_free_slots_is_refused_with_the_time_to_come_back() -> None:
    limiter = ConcurrencyLimiter(3)
    with limiter.acquire(2):
        with limiter.acquire(1):
            assert limiter.num_rows == 3
            with pytest.raises(EkibenError, match="already generating 3 texts; the maximum is 3") as caught:
                limiter.acquire(1).__enter__()
        assert (caught.value.slug, caught.value.retry_after_s) == ("overloaded", 1.0)
        with limiter.acquire(1):
            assert limiter.num_rows == 3
    assert limiter.num_rows == 0


def test_a_request_larger_than_the_limit_runs_alone() -> None:
    limiter = ConcurrencyLimiter(3)
    with limiter.acquire(5), pytest.raises(EkibenError):
        limiter.acquire(1).__enter__()


def test_a_generation_that_fails_frees_its_slots() -> None:
    limiter = ConcurrencyLimiter(3)
    with pytest.raises(RuntimeError), limiter.acquire(3):
        raise RuntimeError
    assert limiter.num_rows == 0


def test_the_wait_follows_from_recent_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("service.engine.admission.concurrency.time", SimpleNamespace(monotonic=lambda: now))
    limiter = ConcurrencyLimiter(2)
    for _ in range(3):
        with limiter.acquire(2):
            now += 10.0
    with limiter.acquire(2), pytest.raises(EkibenError) as caught:
        limiter.acquire(1).__enter__()
    assert caught.value.retry_after_s == 5.0  # the first of two slots, half of ten seconds from now


def test_the_wait_forgets_all_but_the_last_64_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("service.engine.admission.concurrency.time", SimpleNamespace(monotonic=lambda: now))
    limiter = ConcurrencyLimiter(1)
    for duration_s in [1.0] * 200 + [8.0] * 32 + [9.0] * 32:
        with limiter.acquire(1):
            now += duration_s
    with limiter.acquire(1), pytest.raises(EkibenError) as caught:
        limiter.acquire(1).__enter__()
    assert caught.value.retry_after_s == 9.0  # the lower half of 65 would end at 8


def test_before_the_first_measurement_a_generation_is_taken_to_last_a_second() -> None:
    limiter = ConcurrencyLimiter(1)
    with limiter.acquire(1), pytest.raises(EkibenError) as caught:
        limiter.acquire(1).__enter__()
    assert caught.value.retry_after_s == 1.0
