"""Long turns of the event loop are noticed when they come in a row, and forgotten when they are over."""

import asyncio
import time
from collections.abc import Sequence

from service.engine.lag import PAUSE_S, TURNS, Lag


def seen(turns_s: Sequence[float], *, pause_s: float = 0.0) -> list[float]:
    """The lag at the end of each turn of that length, and after all of them and a pause."""
    lag, found = Lag(), []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        for seconds in turns_s:
            lag.seconds(loop)
            time.sleep(seconds)
            found.append(lag.seconds(loop))
            await asyncio.sleep(0)
        time.sleep(pause_s)
        found.append(lag.seconds(loop))

    asyncio.run(scenario())
    return found


def test_only_long_turns_in_a_row_are_noticed() -> None:
    found = seen([0.02] * (TURNS + 1))
    assert found[:TURNS] == [0.0] * TURNS
    assert min(found[TURNS:]) >= 0.02


def test_one_short_turn_is_enough_to_forget_them() -> None:
    assert seen([0.3, 0.3, 0.0])[-1] < 0.3


def test_after_a_pause_nothing_is_known() -> None:
    assert seen([0.02] * TURNS, pause_s=2 * PAUSE_S)[-1] == 0.0


def test_a_loop_that_ended_in_the_middle_of_a_turn_is_forgotten() -> None:
    lag, ended, loop = Lag(), asyncio.new_event_loop(), asyncio.new_event_loop()
    lag.seconds(ended)
    ended.close()
    time.sleep(0.3)
    for _ in range(TURNS):
        loop.call_soon(lag.seconds, loop)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert lag.seconds(loop) < 0.3
    loop.close()
