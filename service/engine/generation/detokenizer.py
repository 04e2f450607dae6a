"""Turn a growing list of tokens into text incrementally, and end the text at the first stop string.

Invariant: released text is never taken back. What later tokens may still change is held back: an incomplete character,
a run of single bytes, and a suffix that may become a stop string. The released texts joined are the text of all tokens,
and each token costs the same, whatever came before: only a window of the last tokens is decoded again.
"""

from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

Decode = Callable[[Sequence[int]], str]
# Decoders return this character for the first bytes of an incomplete one.
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
# Tokens in a window before it is shortened, those that are left, and those of them behind which both must agree.
MAX_WINDOW, MIN_WINDOW, OVERLAP = 16, 8, 4


class TokenDecoder:
    """Decodes tokens, and tells which of them are single bytes of the decoder ByteFallback, such as `<0x0A>`.

    This decoder replaces a whole run of bytes by INCOMPLETE, even its valid characters, if any part of it is invalid.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def is_byte(self, token: int) -> bool:
        name = self._tokenizer.id_to_token(token)
        return name is not None and len(name) == 6 and name.startswith("<0x") and self([token]) != name


class IncrementalDetokenizer:
    """`ids` are the tokens so far; `stopped` is true once a stop string was found."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self.ids: list[int] = []
        self.stopped = False
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        self._stop_prefixes = tuple({stop[:size] for stop in self._stops for size in range(1, len(stop))})
        self._released: list[str] = []
        self._held_back = ""
        self._window: list[int] = []
        self._max_window = MAX_WINDOW
        self._num_read = 0  # characters of the window's text
        self._text = ""  # of the window
        self._in_bytes = False

    @property
    def text(self) -> str:
        """The text released so far."""
        return "".join(self._released)

    def append(self, token: int) -> str:
        """Add a token and return the text that it releases. Must not be called after `stopped`."""
        assert not self.stopped
        self.ids.append(token)
        self._window.append(token)
        if self._ends_in_bytes():
            return ""
        before, self._text = self._text, self._decode(self._window)
        if self._text == before and self._is_silent(token):
            self._window.pop()
        delta = self._read(self._text.removesuffix(INCOMPLETE))
        if len(self._window) >= self._max_window:
            self._shorten_window()
        return self._release(delta)

    def finish(self) -> str:
        """Release the text that was held back, up to a stop string; no tokens follow."""
        if self.stopped:
            return ""
        delta = self._release(self._read(self._decode(self._window)))
        if self.stopped:
            return delta
        self._released.append(self._held_back)
        return delta + self._held_back

    def _ends_in_bytes(self) -> bool:
        """Return whether the window ends in single bytes, which silent tokens do not separate."""
        if not isinstance(self._decode, TokenDecoder):
            return False
        token = self._window[-1]
        self._in_bytes = self._decode.is_byte(token) or (self._in_bytes and self._is_silent(token))
        return self._in_bytes

    def _is_silent(self, token: int) -> bool:
        """Return whether the token has no text in any place, such as a special one; spaces have none at the start."""
        return not self._decode([token] * OVERLAP)

    def _read(self, text: str) -> str:
        """Return what follows the characters that were read before."""
        delta = text[self._num_read :]
        self._num_read += len(delta)
        return delta

    def _shorten_window(self) -> None:
        """Drop the first tokens of the window, if the text behind its last ones is the same without them.

        The start of a text, of a word or of a character must not move: the rest has a text before these last tokens,
        and what they add to it, which is not empty, is what they add to the whole window.
        """
        rest = self._window[-MIN_WINDOW:]
        text, before = self._decode(rest), self._decode(rest[:-OVERLAP])
        added = text.removeprefix(before)
        is_same = text.startswith(before) and self._text == self._decode(self._window[:-OVERLAP]) + added
        if not (before and added and is_same):
            self._max_window = len(self._window) + MIN_WINDOW
            return
        self._num_read -= len(self._text) - len(text)
        self._window, self._text, self._max_window = rest, text, MAX_WINDOW

    def _release(self, delta: str) -> str:
        """Return the text up to a stop string, or what cannot be part of one."""
        text = self._held_back + delta
        positions = [position for stop in self._stops if (position := text.find(stop)) >= 0]
        self.stopped = bool(positions)
        released = text[: min(positions, default=len(text) - self._num_held_back(text))]
        self._held_back = text[len(released) :]
        self._released.append(released)
        return released

    def _num_held_back(self, text: str) -> int:
        """Return the length of the longest suffix that begins a stop string."""
        if not text.endswith(self._stop_prefixes):
            return 0
        return max(len(prefix) for prefix in self._stop_prefixes if text.endswith(prefix))
