"""Limits hold for all workers together, whatever becomes of a worker."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.access.rates import MAX_NAMES, KeyLimits, Limit
from service.keys.key_file import Key

FORK = multiprocessing.get_context("fork")


def key(*, rate: float = 0, burst: int = 0, concurrency: int = 0) -> Key:
    return Key(name="a", digest=b"", scopes=frozenset({"infer"}), rate=rate, burst=burst, concurrency=concurrency)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limit_of(limits: KeyLimits, one: Key) -> Limit:
    limit = limits.limit(one)
    assert limit is not None
    return limit


def counter(limits: KeyLimits, one: Key, *, holds: bool = False) -> Callable[[], bool]:
    limit = limit_of(limits, one)
    return lambda: limits.admit(limit, holds=holds).wait_s == 0


@given(rate=st.floats(0.01, 1e4), burst=st.integers(1, 50), gaps=st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_a_rate_is_a_token_bucket(rate: float, burst: int, gaps: list[float]) -> None:
    """Against a bucket that counts tokens; both may differ where a token is all but there."""
    clock, one = Clock(), key(rate=rate, burst=burst)
    limits = KeyLimits(None, clock=clock)
    limit = limit_of(limits, one)
    tokens = float(burst)
    for gap in gaps:
        clock.now += gap / rate
        tokens = min(burst, tokens + gap)
        usage = limits.admit(limit, holds=False)
        if abs(tokens - round(tokens)) < 1e-3:
            return  # rounding decides
        assert (usage.wait_s == 0) == (tokens >= 1)
        if tokens >= 1:
            tokens -= 1
        else:
            assert usage.wait_s == pytest.approx((1 - tokens) / rate, rel=1e-3)
        assert usage.num_left == int(tokens)
        assert usage.full_s == pytest.approx((burst - tokens) / rate, rel=1e-3, abs=1e-9)


def test_a_request_at_the_time_that_a_refusal_names_is_admitted() -> None:
    clock, one = Clock(), key(rate=3, burst=2)
    limits = KeyLimits(None, clock=clock)
    limit = limit_of(limits, one)
    for _ in range(200):
        while not (wait_s := limits.admit(limit, holds=False).wait_s):
            pass
        clock.now += wait_s
        assert limits.admit(limit, holds=False).wait_s == 0


def test_a_rate_that_was_raised_applies_at_once() -> None:
    clock = Clock()
    limits = KeyLimits(None, clock=clock)
    slow, fast = (limit_of(limits, key(rate=rate, burst=burst)) for rate, burst in ((0.01, 1), (100, 2)))
    assert limits.admit(slow, holds=False).wait_s == 0
    assert limits.admit(slow, holds=False).wait_s == pytest.approx(100)
    assert limits.admit(fast, holds=False).wait_s == pytest.approx(0.01)


def test_places_are_given_back() -> None:
    limits, one = KeyLimits(None), key(concurrency=2)
    limit = limit_of(limits, one)
    assert [limits.admit(limit, holds=True)[::3] for _ in range(3)] == [(0, 1), (0, 0), (math.inf, 0)]
    assert limits.admit(limit, holds=False).wait_s == 0, "reading takes no place"
    limits.release(limit.row)
    assert limits.admit(limit, holds=True).wait_s == 0


def test_a_request_without_a_place_takes_nothing_from_the_rate() -> None:
    limits, one = KeyLimits(None, clock=Clock()), key(rate=1, burst=2, concurrency=1)
    limit = limit_of(limits, one)
    assert limits.admit(limit, holds=True).wait_s == 0
    assert [limits.admit(limit, holds=True).wait_s for _ in range(5)] == [math.inf] * 5
    limits.release(limit.row)
    assert limits.admit(limit, holds=True).wait_s == 0


def test_names_have_rows_of_their_own(tmp_path: Path) -> None:
    first, second = KeyLimits(tmp_path), KeyLimits(tmp_path)
    keys = [replace(key(rate=1, burst=1), name=f"key-{i}") for i in range(MAX_NAMES + 1)]
    rows = [limit_of(first, one).row for one in keys[:-1]]
    assert len(set(rows)) == MAX_NAMES
    assert [limit_of(second, one).row for one in keys[:-1]] == rows
    with pytest.raises(ValueError, match=f"at most {MAX_NAMES} names"):
        second.limit(keys[-1])


def test_a_key_without_limits_is_not_counted() -> None:
    assert KeyLimits(None).limit(key()) is None


def test_threads_share_a_limit() -> None:
    admit = counter(KeyLimits(None, clock=Clock()), key(rate=1, burst=500))
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: admit(), range(2000))) == 500


def _num_admitted(folder: Path, tries: int) -> int:
    one = key(rate=1e-3, burst=1000, concurrency=10**9)
    admit = counter(KeyLimits(folder), one, holds=True)
    return sum(admit() for _ in range(tries))


def test_processes_share_a_limit(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, FORK) as pool:
        admitted = [future.result() for future in [pool.submit(_num_admitted, tmp_path, 2000) for _ in range(4)]]
    assert sum(admitted) == 1000


def _hold_and_die(folder: Path, num: int) -> None:
    one = key(concurrency=5)
    admit = counter(KeyLimits(folder), one, holds=True)
    assert [admit() for _ in range(num)] == [True] * num
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_places_of_a_dead_worker_are_free_when_another_starts(tmp_path: Path) -> None:
    one = key(concurrency=5)
    living = KeyLimits(tmp_path)
    admit = counter(living, one, holds=True)
    assert admit()
    process = FORK.Process(target=_hold_and_die, args=(tmp_path, 4))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert not admit()
    replacement = counter(KeyLimits(tmp_path), one, holds=True)
    assert [replacement() for _ in range(5)] == [True] * 4 + [False], "the place of the living worker is still taken"


def _lock_and_die(folder: Path) -> None:
    KeyLimits(folder)._lock.__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    admit = counter(KeyLimits(tmp_path), key(rate=1, burst=1))
    process = FORK.Process(target=_lock_and_die, args=(tmp_path,))
    process.start()
    process.join(30)
    started = time.monotonic()
    assert admit()
    assert time.monotonic() - started < 10
