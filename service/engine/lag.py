"""How long whoever is ready waits for its turn on an event loop; measured only while somebody asks.

One long turn, of a large body perhaps, says nothing: only several in a row do. Safe to share between event loops as far
as a wrong measurement now and then does no harm.
"""

import asyncio
import time
from collections import deque

TURNS = 3
PAUSE_S = 0.05  # turns further apart are not in a row


class Lag:
    def __init__(self) -> None:
        self._turns_s: deque[float] = deque(maxlen=TURNS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began = 0.0  # when somebody first asked in this turn of the loop; 0: nobody has
        self._ended = 0.0

    def seconds(self, loop: asyncio.AbstractEventLoop) -> float:
        """The shortest of the last turns of the loop; 0 if there were not enough in a row."""
        if not self._began or loop is not self._loop:
            self._began, self._loop = time.monotonic(), loop
            if self._began > self._ended + PAUSE_S:
                self._turns_s.clear()
            loop.call_soon(self._turn)
        return min(self._turns_s) if len(self._turns_s) == TURNS else 0.0

    def _turn(self) -> None:
        if self._began:
            self._ended = time.monotonic()
            self._turns_s.append(self._ended - self._began)
            self._began = 0.0
