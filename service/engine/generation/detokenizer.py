"""The text of a growing answer: what may be shown already, and where a stop string ends it.

Text that was released is never taken back: an unfinished character and an ending that may yet grow into a stop string
are held until the next tokens decide. The released pieces joined are the whole text, streamed or not.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoders give for the first bytes of a character


class Transcript:
    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self.ids: list[int] = []
        self.text = ""  # what was released
        self.stopped = False
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)

    def push(self, token: int) -> str:
        """Add a token; returns the text that it releases. Once `stopped`, nothing more may be pushed."""
        assert not self.stopped
        self.ids.append(token)
        settled = self._decode(self.ids).rstrip(UNFINISHED)
        found = [at for stop in self._stops if (at := settled.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(settled[: min(found)])
        return self._release(settled[: len(settled) - self._held(settled)])

    def finish(self) -> str:
        """No more tokens come: releases what was held."""
        return "" if self.stopped else self._release(self._decode(self.ids))

    def _held(self, text: str) -> int:
        """The length of the longest ending that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        sizes = range(min(longest, len(text)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in self._stops)), 0)

    def _release(self, text: str) -> str:
        piece = text[len(self.text) :]
        self.text += piece
        return piece
