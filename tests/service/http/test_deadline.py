"""The shortest of all limits holds."""

import asyncio

import pytest
from service.engine.deadline import deadline

from service.errors import EkibenError
from service.http.deadline import at_last, at_most, read_timeout_ms


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


def test_what_the_client_said_holds_before_what_it_did_not_say() -> None:
    async def scene(*limits_s: float) -> float | None:
        for limit_s in limits_s:
            at_most(limit_s, 100.0)
        at_last(30, 100.0)
        at_last(60, 100.0)
        return deadline()

    assert asyncio.run(scene()) == 130
    assert asyncio.run(scene(50)) == 150
    assert asyncio.run(scene(5)) == 105


def test_a_header_is_whole_milliseconds() -> None:
    assert read_timeout_ms("1500") == read_timeout_ms("0" * 5000 + "1500") == 1.5
    for wrong in ("", "0", "-1", "1e3", " 5", "\u00b2", "86400001", "0" * 12 + "86400001", "9" * 5000, "0" * 5000):
        with pytest.raises(EkibenError, match="X-Request-Timeout-Ms"):
            read_timeout_ms(wrong)
