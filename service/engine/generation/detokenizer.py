"""Turn a growing list of tokens into text piece by piece, and end the text at the first stop string.

Invariant: released text is never taken back. An incomplete character, and a suffix that may still become a stop
string, are held back until later tokens decide. The released pieces joined are the whole text.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
# Decoders return this character for the first bytes of an incomplete one.
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class IncrementalDetokenizer:
    """`ids` are the tokens so far, `text` the text released so far, `stopped` is true once a stop string was found."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.stopped = False
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)

    def append(self, token: int) -> str:
        """Add a token and return the text that it releases. Must not be called after `stopped`."""
        assert not self.stopped
        self.ids.append(token)
        complete = self._decode(self.ids).rstrip(INCOMPLETE)
        stop_positions = [position for stop in self._stops if (position := complete.find(stop)) >= 0]
        self.stopped = bool(stop_positions)
        return self._emit(complete[: min(stop_positions, default=len(complete) - self._num_held_back(complete))])

    def finish(self) -> str:
        """Release the text that was held back; no tokens follow."""
        return "" if self.stopped else self._emit(self._decode(self.ids))

    def _num_held_back(self, text: str) -> int:
        """Return the length of the longest suffix that begins a stop string."""
        prefixes = (stop[:size] for stop in self._stops for size in range(1, len(stop)))
        return max((len(prefix) for prefix in prefixes if text.endswith(prefix)), default=0)

    def _emit(self, text: str) -> str:
        delta = text[len(self.text) :]
        self.text += delta
        return delta
