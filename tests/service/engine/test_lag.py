"""A long turn of the event loop is noticed, by who comes late in it and by who comes in the next one."""

import asyncio
import time

from service.engine.lag import Lag


def test_a_long_turn_is_noticed_and_forgotten() -> None:
    lag = Lag()
    seen = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        seen.append(lag.seconds(loop))
        time.sleep(0.05)
        seen.append(lag.seconds(loop))
        await asyncio.sleep(0)
        seen.append(lag.seconds(loop))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(lag.seconds(loop))

    asyncio.run(scenario())
    first, late, next_turn, after = seen
    assert first < 0.05
    assert late >= 0.05
    assert next_turn >= 0.05
    assert after < 0.05
