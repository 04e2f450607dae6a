"""The shortest of all limits holds."""

import asyncio

import pytest

from service.engine.deadline import deadline
from service.errors import EkibenError
from service.http.deadline import at_most, read_timeout_ms


def end_of(came: float, *limits_s: float) -> float | None:
    async def scene() -> float | None:
        for limit_s in limits_s:
            at_most(limit_s, came)
        return deadline()

    return asyncio.run(scene())


def test_the_shortest_limit_holds() -> None:
    assert end_of(100.0, 5) == 105
    assert end_of(100.0, 5, 60) == 105
    assert end_of(100.0, 60, 5) == 105


def test_a_header_is_whole_milliseconds() -> None:
    assert read_timeout_ms(b"1500") == 1.5
    for wrong in (b"", b"0", b"-1", b"1e3", b" 5", b"86400001"):
        with pytest.raises(EkibenError, match="X-Request-Timeout-Ms"):
            read_timeout_ms(wrong)
