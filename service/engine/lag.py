"""How long whoever is ready waits for its turn on an event loop; measured only while somebody asks.

Safe to share between event loops as far as a wrong measurement now and then does no harm.
"""

import asyncio
import time


class Lag:
    def __init__(self) -> None:
        self._since = 0.0  # when somebody first asked in this turn of the loop; 0: nobody has
        self._last_s = 0.0

    def seconds(self, loop: asyncio.AbstractEventLoop) -> float:
        """The longer of the last turn of the loop and of this one so far."""
        now = time.monotonic()
        if not self._since:
            self._since = now
            loop.call_soon(self._turn)
        return max(self._last_s, now - self._since)

    def _turn(self) -> None:
        self._last_s = time.monotonic() - self._since
        self._since = 0.0
