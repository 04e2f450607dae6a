"""The shortest of all limits holds."""

import asyncio
import time

import pytest

from service.engine.deadline import deadline
from service.errors import EkibenError
from service.http.deadline import at_most, read_timeout_ms


def after(*limits_s: float) -> float:
    async def scene() -> float:
        for limit_s in limits_s:
            at_most(limit_s)
        end = deadline()
        assert end is not None
        return end - time.monotonic()

    return asyncio.run(scene())


def test_the_shortest_limit_holds() -> None:
    assert 4 < after(5) <= 5
    assert 4 < after(5, 60) <= 5
    assert 4 < after(60, 5) <= 5


def test_a_header_is_whole_milliseconds() -> None:
    assert read_timeout_ms(b"1500") == 1.5
    for wrong in (b"", b"0", b"-1", b"1e3", b" 5", b"86400001"):
        with pytest.raises(EkibenError, match="X-Request-Timeout-Ms"):
            read_timeout_ms(wrong)
